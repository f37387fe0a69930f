"""Which constraints of a quadratic program are active: Mehrotra's predictor-corrector method, and a few steps of the
active-set method, which settle those whose multiplier is small; and the linear system that they leave."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from handgrad import meshes
from handgrad.rules.linear_algebra._matrices import Matrices, Square, lu_factor, lu_solve, product

Vectors = Float[Array, "*batch n"]
Numbers = Float[Array, "*batch"]
SETTLING = 4  # steps of the active-set method
BACKED_OFF = 0.99  # of the way to the boundary


class Program(NamedTuple):
    """½ zᵀ Q z + qᵀ z under A z = b and G z ≤ h, in float32 at least, Q symmetric."""

    Q: Square
    q: Vectors
    A: Float[Array, "*batch m n"]
    b: Float[Array, "*batch m"]
    G: Float[Array, "*batch p n"]
    h: Float[Array, "*batch p"]


class _Iterate(NamedTuple):
    """z, the multipliers ν of A z = b and λ of G z + s = h, and s."""

    z: Vectors
    nu: Float[Array, "*batch m"]
    lam: Float[Array, "*batch p"]
    s: Float[Array, "*batch p"]


def kkt(program: Program, active: Bool[Array, "*batch p"]) -> tuple[Square, Square, Int[Array, "..."], Vectors]:
    """K = [Q, Aᵀ, Gᵀ P; A, 0, 0; P G, 0, P − I] with rows and columns scaled, its LU factorization, and the scale.

    What is factored has a little less than 0 on the diagonal of constraints (regularization), so that constraints that
    depend on each other leave no singular matrix; `kkt_solve` takes that back.
    """
    Q, _, A, _, G, _ = program
    c, a, g = _sizes(program)
    A, G = A / a[..., None], jnp.where(active[..., None], G / g[..., None], 0)
    rows = jnp.concatenate([A, G], axis=-2)
    fixed = jnp.concatenate([jnp.zeros_like(a), jnp.where(active, 0, -1).astype(Q.dtype)], axis=-1)
    K = jnp.concatenate(
        [
            jnp.concatenate([Q / c[..., None, None], rows.mT], axis=-1),
            jnp.concatenate([rows, _diagonal(fixed)], axis=-1),
        ],
        axis=-2,
    )
    n, k = Q.shape[-1], K.shape[-1]
    ridge = float(jnp.finfo(Q.dtype).eps) ** (2 / 3) * (jnp.arange(k) >= n).astype(Q.dtype)
    LU, pivots = lu_factor(K - _diagonal(jnp.broadcast_to(ridge, K.shape[:-1])))
    root = jnp.sqrt(c)[..., None]
    scale = jnp.concatenate([jnp.broadcast_to(1 / root, (*c.shape, n)), root / a, root / g], axis=-1)
    return K, LU, pivots, scale


def kkt_solve(K: Square, LU: Square, pivots: Int[Array, "..."], scale: Vectors, right: Vectors) -> Vectors:
    """K⁻¹ right, refined twice."""
    right = (scale * right)[..., None]
    x = lu_solve(LU, pivots, right)
    for _ in range(2):
        x = x + lu_solve(LU, pivots, right - product(K, x))
    return scale * x[..., 0]


def active_set(program: Program, iterations: int) -> tuple[Bool[Array, "*batch p"], Bool[Array, "*batch"]]:
    """Which constraints are active, and whether the program was solved."""
    c, a, g = _sizes(program)
    if program.h.shape[-1] == 0:
        active = jnp.zeros_like(program.h, dtype=bool)
    else:
        found = _interior_point(_scaled(program), iterations)
        active = found.lam > found.s

    def violations(active):
        K, LU, pivots, scale = kkt(program, active)
        right = jnp.concatenate([-program.q, program.b, jnp.where(active, program.h, 0)], axis=-1)
        x = kkt_solve(K, LU, pivots, scale, right)
        n, m = program.q.shape[-1], program.b.shape[-1]
        z, lam = x[..., :n], x[..., n + m :]
        unmet = jnp.abs(_times(program.A, z) - program.b) / a
        return lam * (g / c[..., None]), (_times(program.G, z) - program.h) / g, unmet, _largest(z)

    def settle(_, carry):
        active, best, least, size = carry
        lam, beyond, unmet, of_z = violations(active)
        worst = _largest(jnp.maximum(jnp.concatenate([-lam, beyond, unmet], axis=-1), 0))
        better = worst < least
        best = jnp.where(better[..., None], active, best)
        least, size = jnp.where(better, worst, least), jnp.where(better, of_z, size)
        return lam + beyond > 0, best, least, size

    nothing = jnp.full_like(c, jnp.inf)
    steps = SETTLING if program.h.shape[-1] else 1
    carry = active, active, nothing, jnp.zeros_like(c)
    _, active, least, size = meshes.fori_loop(steps, settle, carry, program)
    tol = float(jnp.finfo(c.dtype).eps) ** 0.5
    return active, least <= tol * (size + _size(program))


def _interior_point(program: Program, iterations: int) -> _Iterate:
    """Mehrotra's method from z = 0, s = λ = 1, on a program whose numbers are of size 1."""
    Q, q, A, b, G, h = program
    n, eps = q.shape[-1], float(jnp.finfo(q.dtype).eps)

    def step(_, at):
        z, nu, lam, s = at
        dual = _times(Q, z) + q + _times(A.mT, nu) + _times(G.mT, lam)
        equal, beyond = _times(A, z) - b, _times(G, z) + s - h
        D = lam / s
        K = Q + product(G.mT, D[..., None] * G)
        ridge = _diagonal(jnp.full_like(b, -eps))
        whole = jnp.concatenate([jnp.concatenate([K, A.mT], axis=-1), jnp.concatenate([A, ridge], axis=-1)], axis=-2)
        LU, pivots = lu_factor(whole)

        def direction(gap):
            """Newton's, towards s ∘ λ = s ∘ λ − gap."""
            right = -dual + _times(G.mT, gap / s - D * beyond)
            x = lu_solve(LU, pivots, jnp.concatenate([right, -equal], axis=-1)[..., None])[..., 0]
            dz = x[..., :n]
            ds = -beyond - _times(G, dz)
            return _Iterate(dz, x[..., n:], -(gap + lam * ds) / s, ds)

        mu = jnp.mean(s * lam, axis=-1)
        affine = direction(s * lam)
        length = _length(at, affine)[..., None]
        mu_affine = jnp.mean((s + length * affine.s) * (lam + length * affine.lam), axis=-1)
        sigma = (jnp.maximum(mu_affine, 0) / mu) ** 3
        to = direction(s * lam + affine.s * affine.lam - (sigma * mu)[..., None])
        length = (BACKED_OFF * _length(at, to))[..., None]
        off = _largest(jnp.concatenate([dual, equal, beyond], axis=-1))
        through = (mu < eps) & (off < eps**0.5)
        moved = [one + length * d for one, d in zip(at, to, strict=True)]
        sound = jnp.all(jnp.isfinite(jnp.concatenate(moved, axis=-1)), axis=-1) & ~through
        return _Iterate(*(jnp.where(sound[..., None], new, old) for new, old in zip(moved, at, strict=True)))

    start = _Iterate(jnp.zeros_like(q), jnp.zeros_like(b), jnp.ones_like(h), jnp.ones_like(h))
    return meshes.fori_loop(iterations, step, start, program)


def _length(at: _Iterate, to: _Iterate) -> Numbers:
    """How far both s and λ stay positive: 1 at most, the whole step."""
    now, change = jnp.concatenate([at.s, at.lam], axis=-1), jnp.concatenate([to.s, to.lam], axis=-1)
    return jnp.min(jnp.where(change < 0, -now / jnp.where(change < 0, change, -1), 1), axis=-1, initial=1)


def _sizes(program: Program) -> tuple[Numbers, Float[Array, "*batch m"], Float[Array, "*batch p"]]:
    """The largest element of Q, and of each row of A and of G; 1 for 0."""
    Q, _, A, _, G, _ = program
    sizes = _largest(_largest(Q)), _largest(A), _largest(G)
    c, a, g = (jnp.where(size > 0, size, 1) for size in sizes)
    return c, a, g


def _size(program: Program) -> Numbers:
    """How large z is: as q, b and h say."""
    c, a, g = _sizes(program)
    return _largest(jnp.concatenate([program.q / c[..., None], program.b / a, program.h / g], axis=-1))


def _scaled(program: Program) -> Program:
    """The program with numbers of size 1, and the same constraints active."""
    Q, q, A, b, G, h = program
    c, a, g = _sizes(program)
    size = _size(program)
    z = jnp.where(size > 0, size, 1)[..., None]
    c = c[..., None]
    return Program(Q / c[..., None], q / c / z, A / a[..., None], b / a / z, G / g[..., None], h / g / z)


def _diagonal(v: Vectors) -> Square:
    return v[..., None] * jnp.broadcast_to(jnp.eye(v.shape[-1], dtype=v.dtype), (*v.shape, v.shape[-1]))


def _times(A: Matrices, z: Vectors) -> Float[Array, "*batch m"]:
    return product(A, z[..., None])[..., 0]


def _largest(a: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    return jnp.max(jnp.abs(a), axis=-1, initial=0)
