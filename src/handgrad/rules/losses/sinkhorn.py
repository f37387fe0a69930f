"""Entropic optimal transport: what it costs to move one distribution onto another, by Sinkhorn's iterations."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_count,
    check_positive,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.losses._lattices import log_sum
from handgrad.rules.losses._losses import Losses, check_losses_cotangent

__all__ = ["SinkhornResiduals", "sinkhorn", "sinkhorn_backward", "sinkhorn_forward"]

Costs = Float[Array, "batch n m"]
Sources = Float[Array, "batch n"]
Sinks = Float[Array, "batch m"]


class SinkhornResiduals(NamedTuple):
    """The arguments, by reference, and the potentials of every iteration: vectors, not matrices.

    Attributes:
      M, a, b: as given.
      U, V: −f / ε and −g / ε after each iteration, float32 at least; None with residuals="recompute".
    """

    M: Costs
    a: Sources | None
    b: Sinks | None
    U: Float[Array, "batch iterations n"] | None
    V: Float[Array, "batch iterations m"] | None


def sinkhorn_forward(
    M: Costs,
    a: Sources | None = None,
    b: Sinks | None = None,
    *,
    epsilon: float,
    iterations: int,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Losses, SinkhornResiduals]:
    """C = ⟨a, f⟩ + ⟨b, g⟩ after so many iterations, from g = 0, of

        f_i = −ε log Σ_j b_j e^((g_j − m_ij) / ε)        g_j = −ε log Σ_i a_i e^((f_i − m_ij) / ε)

    It converges to min ⟨P, M⟩ + ε KL(P ‖ a bᵀ) over the plans P ≥ 0 with row sums a and column sums b.

    Args:
      M: m_ij is the cost to move a unit from i to j.
      a, b: what is at each source and needed at each sink, ≥ 0, each with the sum 1; None is the same at all. At a
        weight of 0 its point has no part.
      epsilon: of the entropy; the smaller, the closer to optimal transport, and the more iterations it takes.
      iterations: how many.
      residuals: "save" keeps f and g of each iteration, "recompute" computes them again in the backward pass.
    Derivation: docs/derivations/losses/sinkhorn.md (Cuturi 2013; Peyré and Cuturi 2019)
    """
    where = "sinkhorn_forward"
    check_array(where, "the costs M", M)
    if M.ndim != 3 or 0 in M.shape[1:]:
        raise InputError(f"{where}: the costs M must have shape (batch, n, m), n, m ≥ 1, got {describe(M)}")
    for name, weights, count in (("a", a, M.shape[1]), ("b", b, M.shape[2])):
        if weights is not None:
            check_array(where, name, weights)
            check_shape(where, name, weights, (M.shape[0], count), "(a weight for each point)")
    _check_options(where, epsilon, iterations)
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    kept = SinkhornResiduals(M, a, b, None, None)
    M, a, b = _wide(kept)
    U, V = _potentials(M, a, b, epsilon, iterations)
    C = -epsilon * (jnp.sum(a * U[:, -1], axis=1) + jnp.sum(b * V[:, -1], axis=1))
    return C.astype(_dtype(kept)), kept._replace(U=U, V=V) if residuals == "save" else kept


def sinkhorn_backward(
    residuals: SinkhornResiduals, dC: Losses, *, epsilon: float, iterations: int
) -> tuple[Costs, Sources | None, Sinks | None]:
    """Pull dC back through the iterations, from the last to the first, df = dC a and dg = dC b at their end:

        T ∝ e^((f − M) / ε), columns with aᵀ T = 1    w = T dg     df −= a ∘ w, da −= ε w, dM += diag(a) T diag(dg)
        T ∝ e^((g − M) / ε), rows with T b = 1        w = Tᵀ df    dg = −b ∘ w, db −= ε w, dM += diag(df) T diag(b)

    The first dM is dC P, and df is then dC (a − P 1): at convergence nothing is left to pull back.

    Derivation: docs/derivations/losses/sinkhorn.md
    """
    where = "sinkhorn_backward"
    kept = check_residuals(where, residuals, SinkhornResiduals)
    check_losses_cotangent(where, dC, kept.M, _dtype(kept))
    _check_options(where, epsilon, iterations)
    M, a, b = _wide(kept)
    U, V = kept.U, kept.V
    if U is None or V is None:
        U, V = _potentials(M, a, b, epsilon, iterations)

    def of_one(M: Array, a: Array, b: Array, U: Array, V: Array, dC: Array) -> tuple[Array, Array, Array]:
        def one_back(carry: tuple[Array, ...], at: tuple[Array, ...]) -> tuple[tuple[Array, ...], None]:
            (df, dg, dM, da, db), (u, v_before) = carry, at
            T = _kernel((-epsilon * u[:, None] - M) / epsilon, a[:, None], 0)
            w = T @ dg
            df, da, dM = df - a * w, da - epsilon * w, dM + a[:, None] * T * dg[None]
            T = _kernel((-epsilon * v_before[None] - M) / epsilon, b[None], 1)
            w = df @ T
            dg, db, dM = -b * w, db - epsilon * w, dM + df[:, None] * T * b[None]
            return (jnp.zeros_like(df), dg, dM, da, db), None

        before = jnp.concatenate([jnp.zeros_like(V[:1]), V[:-1]])
        start = dC * a, dC * b, jnp.zeros_like(M), -epsilon * dC * U[-1], -epsilon * dC * V[-1]
        (_, _, dM, da, db), _ = meshes.scan(one_back, start, (U, before), reverse=True)
        return dM, da, db

    dM, da, db = meshes.along_batch(jax.vmap(of_one), M, a, b, U, V, dC.astype(M.dtype))
    da, db = (None if p is None else dp.astype(p.dtype) for p, dp in ((kept.a, da), (kept.b, db)))
    return dM.astype(kept.M.dtype), da, db


sinkhorn = Rule(sinkhorn_forward, sinkhorn_backward)


def _dtype(kept: SinkhornResiduals) -> jnp.dtype:
    """The loss's."""
    return jnp.result_type(*(p for p in kept[:3] if p is not None))


def _wide(kept: SinkhornResiduals) -> tuple[Costs, Sources, Sinks]:
    """Costs and weights in float32 at least; equal weights in the place of None."""
    dtype = accumulator(_dtype(kept))
    M = kept.M.astype(dtype)
    a = jnp.full_like(M[:, :, 0], 1 / M.shape[1]) if kept.a is None else kept.a.astype(dtype)
    b = jnp.full_like(M[:, 0], 1 / M.shape[2]) if kept.b is None else kept.b.astype(dtype)
    return M, a, b


def _potentials(M: Costs, a: Sources, b: Sinks, epsilon: float, iterations: int) -> tuple[Array, Array]:
    """−f / ε and −g / ε after each iteration: (batch, iterations, n) and (batch, iterations, m)."""

    def of_one(M: Array, a: Array, b: Array) -> tuple[Array, Array]:
        def one_step(v: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            u = log_sum((-epsilon * v[None] - M) / epsilon + jnp.log(b)[None], 1)
            v = log_sum((-epsilon * u[:, None] - M) / epsilon + jnp.log(a)[:, None], 0)
            return v, (u, v)

        return meshes.scan(one_step, jnp.zeros_like(M[0]), None, length=iterations)[1]

    return meshes.along_batch(jax.vmap(of_one), M, a, b)


def _kernel(X: Array, weights: Array, axis: int) -> Array:
    """e^x over its weighted sum along an axis, which is taken anew: the logarithm of it that the forward pass has may
    be so large that rounding leaves no digits after the point. Only a point of weight 0 may exceed 1 / weight, and is
    cut off where it would overflow."""
    above = X - jnp.max(X + jnp.log(weights), axis, keepdims=True)
    E = jnp.exp(jnp.minimum(above, math.log(float(jnp.finfo(X.dtype).max)) / 2))
    return E / jnp.sum(weights * E, axis, keepdims=True)


def _check_options(where: str, epsilon: float, iterations: int) -> None:
    check_positive(where, "epsilon", epsilon)
    check_count(where, "iterations", iterations)
