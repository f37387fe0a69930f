"""The root of g(Z) = 0 by Newton's method, and its backward pass by the implicit function theorem: one linear solve.

    g(θ, Z, X) = 0        U = −J⁻ᵀ dZ, J = ∂g/∂Z        dX = (∂g/∂X)ᵀ U        dθ = (∂g/∂θ)ᵀ U

The rows of each example's J are n pull-backs, all examples at once. The equations take g with its pull-back as a
function.

Derivation: docs/derivations/structure/root.md
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from handgrad import meshes
from handgrad.factors.base import accumulator
from handgrad.rules.structure.fixed_point import Convergence

__all__ = ["pull_back_root", "solve_root"]

Points = Float[Array, "batch *rest"]
D = TypeVar("D")
PullBack = Callable[[Points], tuple[Points, D]]


class _State(NamedTuple):
    """Z, the length of the last step, whether an example is through, and how many steps there were: of it, of the
    loop."""

    Z: Points
    error: Float[Array, " batch"]
    through: Bool[Array, " batch"]
    iterations: Int[Array, " batch"]
    steps: Int[Array, ""]


def solve_root(
    g: Callable[[Points], tuple[Points, PullBack[D]]],
    Z: Points,
    *,
    tol: float | None,
    iterations: int,
    unconverged: Literal["keep", "nan"] = "keep",
) -> tuple[Points, Convergence]:
    """Z with g(Z) = 0, by Z ← Z − J⁻¹ g(Z) from a first Z.

    Args:
      g: Z -> (g(Z), its pull-back: dR -> (dZ, the cotangents of all other arguments)).
      tol: an example has converged with a step of max |step| ≤ tol (1 + max |Z|), and takes no further one. None takes
        all steps, as a loop that reverse-mode autodiff can differentiate.
      iterations: steps at most.
      unconverged: "nan" in the place of a Z that has not converged, "keep" for its last one.
    """

    def step(state: _State) -> _State:
        R, pull_back = g(state.Z)
        change = _solve(_jacobian(pull_back, R), R)
        error = _largest(change)
        within = (error <= (tol or 0.0) * (1 + _largest(state.Z))) | ~jnp.isfinite(error)
        moved = (state.Z - change.astype(state.Z.dtype)).astype(state.Z.dtype)
        running = jnp.expand_dims(~state.through, tuple(range(1, moved.ndim)))
        return _State(
            jnp.where(running, moved, state.Z),
            jnp.where(state.through, state.error, error),
            state.through | within,
            state.iterations + ~state.through,
            state.steps + 1,
        )

    examples = _largest(Z)
    none = jnp.zeros_like(examples, dtype=jnp.int32)
    state = _State(Z, jnp.full_like(examples, jnp.inf), none > 0, none, jnp.asarray(0, jnp.int32))
    if tol is None:
        state, _ = meshes.scan(lambda state, _: (step(state), None), state, None, length=iterations)
    else:
        state = meshes.while_loop(lambda s: (s.steps < iterations) & ~jnp.all(s.through), step, state)
    converged = state.through & jnp.isfinite(state.error)
    Z = state.Z
    if unconverged == "nan":
        Z = jnp.where(jnp.expand_dims(converged, tuple(range(1, Z.ndim))), Z, jnp.nan)
    return Z, Convergence(converged, state.error, state.iterations)


def pull_back_root(pull_back: PullBack[D], Z: Points, dZ: Points) -> D:
    """Pull dZ back through the root Z.

        U = −J⁻ᵀ dZ        the cotangent at g's output, whose pull-back is that of everything else

    Args:
      pull_back: of g at Z, dR -> (dZ, the cotangents of all other arguments).
    """
    U = -_solve(_jacobian(pull_back, Z).mT, dZ)
    return pull_back(U.astype(dZ.dtype))[1]


def _jacobian(pull_back: PullBack[D], R: Points) -> Float[Array, "batch n n"]:
    """∂g/∂Z of every example: row i is the pull-back of the i-th unit vector."""
    n = math.prod(R.shape[1:])
    units = jnp.eye(n, dtype=R.dtype).reshape(n, 1, *R.shape[1:])
    rows = jax.vmap(lambda unit: pull_back(jnp.zeros_like(R) + unit)[0])(units)
    return jnp.moveaxis(rows, 0, 1).reshape(R.shape[0], n, n)


def _solve(J: Float[Array, "batch n n"], R: Points) -> Points:
    """J⁻¹ R, example by example, in float32 at least."""
    dtype = accumulator(J)
    rows = R.reshape(*J.shape[:2], 1).astype(dtype)
    return meshes.along_batch(jnp.linalg.solve, J.astype(dtype), rows).reshape(R.shape)


def _largest(Z: Points) -> Float[Array, " batch"]:
    Z = Z.astype(accumulator(Z))
    return jnp.max(jnp.abs(Z), axis=tuple(range(1, Z.ndim)), initial=0)
