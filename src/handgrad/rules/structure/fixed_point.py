"""The fixed point Z = f(Z), and its backward pass by the implicit function theorem: a second fixed point.

    Z = f(θ, Z, X)        U = dZ + (∂f/∂Z)ᵀ U        dX = (∂f/∂X)ᵀ U        dθ = (∂f/∂θ)ᵀ U

Nothing of the forward iteration is kept: the backward pass needs f's pull-back at Z alone. The equations take f and its
pull-back as functions.

Derivation: docs/derivations/structure/fixed_point.md (Bai, Kolter, Koltun, 2019)
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from handgrad import meshes
from handgrad.factors.base import accumulator

__all__ = ["Convergence", "pull_back_fixed_point", "solve_fixed_point"]

Points = Float[Array, "batch *rest"]
History = Float[Array, "batch history n"]
D = TypeVar("D")


class Convergence(NamedTuple):
    """How each example's iteration ended.

    Attributes:
      converged: whether the error came within the tolerance.
      error: max |f(Z) − Z| at the Z that is returned.
      iterations: evaluations of f until then.
    """

    converged: Bool[Array, " batch"]
    error: Float[Array, " batch"]
    iterations: Int[Array, " batch"]


class _State(NamedTuple):
    """Z, f(Z), the last differences of Z and of G = f(Z) − Z, and how many evaluations there were: of an example, of
    the loop."""

    Z: Points
    F: Points
    dZ: History
    dG: History
    iterations: Int[Array, " batch"]
    steps: Int[Array, ""]


def solve_fixed_point(
    f: Callable[[Points], Points],
    Z: Points,
    *,
    tol: float | None,
    iterations: int,
    history: int = 5,
    floor: float = 1.0,
    unconverged: Literal["keep", "nan"] = "keep",
    together: bool = False,
) -> tuple[Points, Convergence]:
    """Z = f(Z), from a first Z: plain iteration, or Anderson's over the last `history` steps.

    Every example has its own coefficients, stops by itself, and is left as it is from then on.

    Args:
      tol: an example has converged where max |f(Z) − Z| ≤ tol (floor + max |f(Z)|); the loop ends with the last of
        them. None is plain iteration, all of it, as a loop that reverse-mode autodiff can differentiate.
      iterations: evaluations of f at most.
      history: 0 for Z ← f(Z).
      floor: 0 for a tolerance that is relative alone.
      unconverged: "nan" in the place of a Z that has not converged, "keep" for its last one.
      together: True for an f whose examples interact: none stops before all have converged.
    """

    def going(state: _State) -> Bool[Array, " batch"]:
        converged, error, _ = _convergence(state, tol, floor)
        if tol is None:
            return jnp.ones_like(converged)
        running = ~converged & jnp.isfinite(error)
        return running | jnp.any(running) if together else running

    def step(state: _State) -> _State:
        running = going(state)
        Z_next, dZ, dG = _next_point(state)
        Z_next = jnp.where(_beside(running, Z_next), Z_next, state.Z)
        F_next = f(Z_next)
        dZ, dG = _remembered(state, dZ, dG, Z_next, F_next)
        return _State(Z_next, F_next, dZ, dG, state.iterations + running, state.steps + 1)

    shape = (len(Z), 0 if tol is None else history, math.prod(Z.shape[1:]))
    empty = meshes.along_batch(lambda Z: jnp.zeros(shape, accumulator(Z)), Z)
    ones = jnp.ones_like(_largest(_rows(Z)), dtype=jnp.int32)
    state = _State(Z, f(Z), empty, empty, ones, jnp.asarray(1, jnp.int32))
    if tol is None:
        state, _ = meshes.scan(lambda state, _: (step(state), None), state, None, length=iterations - 1)
    else:
        state = meshes.while_loop(lambda state: (state.steps < iterations) & jnp.any(going(state)), step, state)
    convergence = _convergence(state, tol, floor)
    if unconverged == "keep":
        return state.Z, convergence
    return jnp.where(_beside(convergence.converged, state.Z), state.Z, jnp.nan), convergence


def pull_back_fixed_point(
    pull_back: Callable[[Points], tuple[Points, D]],
    dZ: Points,
    *,
    tol: float | None,
    iterations: int,
    history: int = 5,
    unconverged: Literal["keep", "nan"] = "keep",
    together: bool = False,
) -> tuple[D, Convergence]:
    """Pull dZ back through the fixed point.

        U = dZ + (∂f/∂Z)ᵀ U        the cotangent at f's output, whose pull-back is that of everything else

    The equation is linear in U, and so is the tolerance: max |change| ≤ tol max |U|.

    Args:
      pull_back: of f at the fixed point, dF -> (dZ, the cotangents of all other arguments).
      tol, iterations, history, unconverged, together: as for solve_fixed_point.
    """
    options: dict[str, Any] = {"tol": tol, "iterations": iterations, "history": history, "unconverged": unconverged}
    options |= {"floor": 0.0, "together": together}
    U, convergence = solve_fixed_point(lambda U: dZ + pull_back(U)[0], dZ, **options)
    return pull_back(U)[1], convergence


def _convergence(state: _State, tol: float | None, floor: float) -> Convergence:
    """Of the present Z; what isn't finite has not converged."""
    error, size = _largest(_rows(state.F) - _rows(state.Z)), _largest(_rows(state.F))
    within = (error <= (tol or 0.0) * (floor + size)) & jnp.isfinite(error)
    return Convergence(within, error, state.iterations)


def _next_point(state: _State) -> tuple[Points, History, History]:
    """F − (dZ + dG)ᵀ γ, where γ makes ‖G − dGᵀ γ‖ least; and the history."""
    if not state.dG.shape[1]:
        return state.F, state.dZ, state.dG
    F, dZ, dG = _rows(state.F), state.dZ, state.dG
    gamma = _coefficients(dG, F - _rows(state.Z))
    step = F - jnp.einsum("bh,bhn->bn", gamma, dZ + dG, precision=jax.lax.Precision.HIGHEST)
    step = jnp.where(jnp.all(jnp.isfinite(step), axis=1, keepdims=True), step, F)
    return step.reshape(state.Z.shape).astype(state.Z.dtype), dZ, dG


def _coefficients(dG: History, G: Float[Array, "batch n"]) -> Float[Array, "batch history"]:
    """Least squares by the normal equations of columns of length 1, and a little of ridge regression: directions that
    rounding alone tells apart get no weight."""
    longest = jnp.max(jnp.abs(dG), axis=2, keepdims=True)
    dG = dG / jnp.where(longest > 0, longest, 1)
    length = jnp.sqrt(jnp.sum(dG * dG, axis=2, keepdims=True))
    dG = dG / jnp.where(length > 0, length, 1)
    gram = jnp.einsum("bhn,bkn->bhk", dG, dG, precision=jax.lax.Precision.HIGHEST)
    ridge = float(jnp.finfo(dG.dtype).eps) ** (2 / 3) * jnp.eye(dG.shape[1], dtype=dG.dtype)
    right = jnp.einsum("bhn,bn->bh", dG, G, precision=jax.lax.Precision.HIGHEST)
    gamma = meshes.along_batch(jnp.linalg.solve, gram + ridge[None], right[..., None])[..., 0]
    scale = longest[..., 0] * length[..., 0]
    return gamma / jnp.where(scale > 0, scale, 1)


def _remembered(state: _State, dZ: History, dG: History, Z_next: Points, F_next: Points) -> tuple[History, History]:
    """The history with the newest differences in the place of the oldest."""
    if not dG.shape[1]:
        return dZ, dG
    Z, F, Z_next, F_next = map(_rows, (state.Z, state.F, Z_next, F_next))

    def with_newest(past: History, difference: Float[Array, "batch n"]) -> History:
        return jnp.concatenate([past[:, 1:], difference[:, None]], axis=1)

    return with_newest(dZ, Z_next - Z), with_newest(dG, (F_next - Z_next) - (F - Z))


def _rows(Z: Points) -> Float[Array, "batch n"]:
    """One row for each example, in float32 at least."""
    return Z.reshape(Z.shape[0], math.prod(Z.shape[1:])).astype(accumulator(Z))


def _largest(rows: Float[Array, "batch n"]) -> Float[Array, " batch"]:
    return jnp.max(jnp.abs(rows), axis=1, initial=0)


def _beside(flags: Bool[Array, " batch"], Z: Points) -> Bool[Array, "batch ..."]:
    return jnp.expand_dims(flags, tuple(range(1, Z.ndim)))
