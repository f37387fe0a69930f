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
      F, G: f and g after each iteration, float32 at least; None with residuals="recompute".
    """

    M: Costs
    a: Sources | None
    b: Sinks | None
    F: Float[Array, "batch iterations n"] | None
    G: Float[Array, "batch iterations m"] | None


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
    F, G = _potentials(M, a, b, epsilon, iterations)
    C = jnp.sum(a * F[:, -1], axis=1) + jnp.sum(b * G[:, -1], axis=1)
    return C.astype(_dtype(kept)), kept._replace(F=F, G=G) if residuals == "save" else kept


def sinkhorn_backward(
    residuals: SinkhornResiduals, dC: Losses, *, epsilon: float, iterations: int
) -> tuple[Costs, Sources | None, Sinks | None]:
    """Pull dC back through the iterations, from the last to the first, df = dC a and dg = dC b at their end:

        T = e^((f − M) / ε) of unit columns aᵀ T = 1     v = T dg     df −= a ∘ v, da −= ε v, dM += diag(a) T diag(dg)
        T = e^((g − M) / ε) of unit rows T b = 1         w = Tᵀ df    dg = −b ∘ w, db −= ε w, dM += diag(df) T diag(b)

    The first dM is dC P, and df is then dC (a − P 1): at convergence nothing is left to pull back.

    Derivation: docs/derivations/losses/sinkhorn.md
    """
    where = "sinkhorn_backward"
    kept = check_residuals(where, residuals, SinkhornResiduals)
    check_losses_cotangent(where, dC, kept.M, _dtype(kept))
    _check_options(where, epsilon, iterations)
    M, a, b = _wide(kept)
    F, G = (kept.F, kept.G) if kept.F is not None else _potentials(M, a, b, epsilon, iterations)

    def of_one(M: Array, a: Array, b: Array, F: Array, G: Array, dC: Array) -> tuple[Array, Array, Array]:
        def one_back(carry: tuple[Array, ...], at: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
            (df, dg, dM, da, db), (f, g_before) = carry, at
            T = _scaled(f[:, None] - M, a[:, None], epsilon, 0)
            v = T @ dg
            df, da, dM = df - a * v, da - epsilon * v, dM + a[:, None] * T * dg[None]
            T = _scaled(g_before[None] - M, b[None], epsilon, 1)
            w = df @ T
            dg, db, dM = -b * w, db - epsilon * w, dM + df[:, None] * T * b[None]
            return (jnp.zeros_like(df), dg, dM, da, db), None

        before = jnp.concatenate([jnp.zeros_like(G[:1]), G[:-1]])
        start = dC * a, dC * b, jnp.zeros_like(M), dC * F[-1], dC * G[-1]
        (_, _, dM, da, db), _ = meshes.scan(one_back, start, (F, before), reverse=True)
        return dM, da, db

    dM, da, db = meshes.along_batch(jax.vmap(of_one), M, a, b, F, G, dC.astype(M.dtype))
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
    """f and g after each iteration: (batch, iterations, n) and (batch, iterations, m)."""

    def of_one(M: Array, a: Array, b: Array) -> tuple[Array, Array]:
        def one_step(g: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            f = -epsilon * log_sum((g[None] - M) / epsilon + jnp.log(b)[None], 1)
            g = -epsilon * log_sum((f[:, None] - M) / epsilon + jnp.log(a)[:, None], 0)
            return g, (f, g)

        return meshes.scan(one_step, jnp.zeros_like(M[0]), None, length=iterations)[1]

    return meshes.along_batch(jax.vmap(of_one), M, a, b)


def _scaled(D: Array, weights: Array, epsilon: float, axis: int) -> Array:
    """e^(D / ε) scaled so that it sums to 1 along an axis with these weights; a point without weight may overflow."""
    X = D / epsilon
    sums = jnp.expand_dims(log_sum(X + jnp.log(weights), axis), axis)
    return jnp.exp(jnp.minimum(X - sums, math.log(float(jnp.finfo(X.dtype).max)) / 2))


def _check_options(where: str, epsilon: float, iterations: int) -> None:
    check_positive(where, "epsilon", epsilon)
    check_count(where, "iterations", iterations)
