"""The quadratic program: the solution is that of one linear system, once it is known which constraints are active.

    z = argmin ½ zᵀ Q z + qᵀ z        A z = b        G z ≤ h

    K (z, ν, λ) = (−q, b, P h)        K = [Q, Aᵀ, Gᵀ P; A, 0, 0; P G, 0, P − I]        P = diag(active)

An interior-point method finds P; the system gives z to the last digits, and its factorization the backward pass.

Derivation: docs/derivations/linear_algebra/quadratic_program.md (Amos, Kolter, 2017)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_count,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._interior_point import Program, active_set, kkt, kkt_solve
from handgrad.rules.linear_algebra._matrices import Square, check_square, no_columns, product, symmetric

__all__ = ["QuadraticProgramResiduals", "quadratic_program", "quadratic_program_backward", "quadratic_program_forward"]

Vectors = Float[Array, "*batch n"]
Equalities = Float[Array, "*batch m n"]
Equals = Float[Array, "*batch m"]
Inequalities = Float[Array, "*batch p n"]
Bounds = Float[Array, "*batch p"]
Likes = tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]


class QuadraticProgramResiduals(NamedTuple):
    """The system's factorization and its solution.

    Attributes:
      K: the system, its rows and columns scaled: for one step of refinement.
      LU, pivots: its factorization.
      scale: of rows and columns.
      x: the solution and the multipliers, (z, ν, λ), λ = 0 where a constraint is not active.
      like: of each argument its dtype, and its rows: no element.
    """

    K: Float[Array, "*batch k k"]
    LU: Float[Array, "*batch k k"]
    pivots: Int[Array, "*batch k"]
    scale: Float[Array, "*batch k"]
    x: Float[Array, "*batch k"]
    like: Likes


def quadratic_program_forward(
    Q: Square,
    q: Vectors,
    A: Equalities | None = None,
    b: Equals | None = None,
    G: Inequalities | None = None,
    h: Bounds | None = None,
    *,
    iterations: int = 25,
) -> tuple[Vectors, QuadraticProgramResiduals]:
    """z = argmin ½ zᵀ Q z + qᵀ z under A z = b and G z ≤ h, by an interior-point method.

    Q is read as (Q + Qᵀ) / 2, and must be positive definite where A z = 0. The result is NaN where the constraints
    exclude each other, or the iterations did not suffice.

    At a degenerate point, where a constraint holds with equality and multiplier 0, z has a kink. The gradient is then
    that of one side: the constraint counts as active or not, as rounding decides.

    Args:
      A, b: equalities; None for none.
      G, h: inequalities; None for none.
      iterations: of the interior-point method.
    Derivation: docs/derivations/linear_algebra/quadratic_program.md (Amos, Kolter, 2017)
    """
    _check(Q, q, A, b, G, h)
    check_count("quadratic_program_forward", "iterations", iterations)
    like = no_columns(Q), no_columns(q), _like(A), _like(b), _like(G), _like(h)
    A, b, G, h = (*_or_none(Q, q, A, b), *_or_none(Q, q, G, h))
    Qw, *others = wide(Q, q, A, b, G, h)

    def solved(*program: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
        of = Program(*program)
        active, found = active_set(jax.lax.stop_gradient(of), iterations)
        K, LU, pivots, scale = kkt(of, active)
        right = jnp.concatenate([-of.q, of.b, jnp.where(active, of.h, 0)], axis=-1)
        x = kkt_solve(K, LU, pivots, scale, right)
        return jnp.where(found[..., None], x[..., : q.shape[-1]], jnp.nan), K, LU, pivots, scale, x

    z, K, LU, pivots, scale, x = meshes.along_batch(solved, symmetric(Qw), *others)
    return z.astype(_dtype(like)), QuadraticProgramResiduals(K, LU, pivots, scale, x, like)


def quadratic_program_backward(
    residuals: QuadraticProgramResiduals, dY: Vectors, *, iterations: int = 25
) -> tuple[Array | None, ...]:
    """Pull dY back through the quadratic program: one more solve with the same system.

        (w, u, v) = K⁻¹ (dY, 0, 0)
        dQ = −½ (w zᵀ + z wᵀ)      dq = −w
        dA = −(ν wᵀ + u zᵀ)        db = u
        dG = −(λ wᵀ + v zᵀ)        dh = v        0 in the rows that are not active

    Derivation: docs/derivations/linear_algebra/quadratic_program.md
    """
    residuals = check_residuals("quadratic_program_backward", residuals, QuadraticProgramResiduals)
    K, LU, pivots, scale, x, like = residuals
    like_Q, _, like_A, *_ = like
    n, m = like_Q.shape[-2], 0 if like_A is None else like_A.shape[-2]
    check_cotangent("quadratic_program_backward", dY, (*x.shape[:-1], n), _dtype(like))
    right = jnp.concatenate([dY.astype(x.dtype), jnp.zeros_like(x[..., n:])], axis=-1)
    w, u, v = _parts(meshes.along_batch(kkt_solve, K, LU, pivots, scale, right), n, m)
    z, nu, lam = _parts(x, n, m)
    dQ, dA, dG = -symmetric(_outer(w, z)), -(_outer(nu, w) + _outer(u, z)), -(_outer(lam, w) + _outer(v, z))
    cotangents = zip((dQ, -w, dA, u, dG, v), like, strict=True)
    return tuple(None if of is None else d.astype(of.dtype) for d, of in cotangents)


quadratic_program = Rule(quadratic_program_forward, quadratic_program_backward)


def _parts(x: Float[Array, "*rest k"], n: int, m: int) -> tuple[Array, Array, Array]:
    """z, ν and λ."""
    return x[..., :n], x[..., n : n + m], x[..., n + m :]


def _outer(a: Float[Array, "*rest m"], b: Float[Array, "*rest n"]) -> Float[Array, "*rest m n"]:
    return product(a[..., :, None], b[..., None, :])


def _like(a: Array | None) -> Array | None:
    return None if a is None else no_columns(a)


def _dtype(like: Likes) -> jnp.dtype:
    return jnp.result_type(*(a for a in like if a is not None))


def _or_none(Q: Square, q: Vectors, A: Equalities | None, b: Equals | None) -> tuple[Array, Array]:
    """Constraints, or none of them."""
    return (Q[..., :0, :], q[..., :0]) if A is None or b is None else (A, b)


def _check(Q: Array, q: Array, A: Array | None, b: Array | None, G: Array | None, h: Array | None) -> None:
    """One program for each example."""
    where = "quadratic_program_forward"
    check_array(where, "Q", Q)
    check_square(where, "Q", Q)
    check_array(where, "q", q)
    check_shape(where, "q", q, Q.shape[:-1], f"to match Q {tuple(Q.shape)}")
    for names, matrix, bound in (("Ab", A, b), ("Gh", G, h)):
        if (matrix is None) != (bound is None):
            got = describe(bound if matrix is None else matrix)
            raise InputError(f"{where}: {names[0]} and {names[1]} must both be arrays or both None, got {got} alone")
        if matrix is not None:
            check_array(where, names[0], matrix)
            check_array(where, names[1], bound)
            rows = matrix.shape[-2] if matrix.ndim >= 2 else 0
            check_shape(where, names[0], matrix, (*Q.shape[:-2], rows, Q.shape[-1]), f"to match Q {tuple(Q.shape)}")
            check_shape(where, names[1], bound, (*Q.shape[:-2], rows), f"to match {names[0]} {tuple(matrix.shape)}")
