"""Actions of a policy, or a language model's tokens: which count, how far their ratio is trusted, what leaving a
reference costs."""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from handgrad.checks import InputError, check_array, check_choice, check_positive, check_shape, describe
from handgrad.rules._wide import wide

Actions = Float[Array, "batch *tokens"]
Advantages = Float[Array, "batch *some"]  # the first axes of Actions, or all of them
Mask = Bool[Array, "batch *tokens"]
Reduction = Literal["mean", "sum"]


def check_actions(
    where: str, L: Array, A: Array, mask: Array | None, others: dict[str, Array], clip: float, clip_high: float | None
) -> None:
    """Log-probabilities of one shape, advantages and a mask that fit them, and a clip."""
    check_array(where, "the log-probabilities L", L, min_ndim=1)
    for name, other in others.items():
        check_array(where, name, other)
        check_shape(where, name, other, L.shape, "like L")
    check_array(where, "the advantages A", A, min_ndim=1)
    check_shape(where, "the advantages A", A, L.shape[: A.ndim], "(the first axes of L)")
    if mask is not None:
        check_shape(where, "mask", mask, L.shape, "like L")
        if mask.dtype != bool:
            raise InputError(f"{where}: mask must be of booleans, got {describe(mask)}")
    check_positive(where, "clip", clip)
    if clip >= 1:
        raise InputError(f"{where}: clip must be below 1, got {clip}")
    if clip_high is not None:
        check_positive(where, "clip_high", clip_high)


def weight_of_actions(where: str, L: Array, mask: Array | None, reduction: Reduction) -> Array | float:
    """w of every action: 0 where the mask is False; for a mean 1 / (actions that count in the sequence × sequences)."""
    check_choice(where, "reduction", reduction, ("mean", "sum"))
    w = 1.0 if mask is None else mask.astype(L.dtype)
    if reduction == "sum" or L.ndim == 1:
        return w
    counts = L.shape[-1] if mask is None else jnp.maximum(jnp.sum(w, axis=-1, keepdims=True), 1)
    return w / (counts * math.prod(L.shape[1:-1]))


def counting(mask: Array | None, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in the dtype of sums, with the axes of the first; where the mask is False 0, whatever was there."""
    ndim = arrays[0].ndim
    against = [jnp.expand_dims(a, tuple(range(a.ndim, ndim))) for a in wide(*arrays)]
    return tuple(a if mask is None else jnp.where(mask, a, 0) for a in against)


def surrogate(d: Array, a: Array, clip: float, clip_high: float | None) -> tuple[Array, Array]:
    """The ratio ρ = e^d as far as the advantage a trusts it, and its slope for d: ρ, or 0 beyond the bound.

    Bounds are of d itself, so that no ratio overflows, and a ratio at the bound is on this side of it.
    """
    clip_high = clip if clip_high is None else clip_high
    high, low = math.log1p(clip_high), math.log1p(-clip)
    beyond = jnp.where(d > high, a > 0, (d < low) & (a < 0))
    ratio = jnp.exp(jnp.where(beyond, 0, d))
    bound = jnp.where(d > high, 1 + clip_high, 1 - clip)
    return jnp.where(beyond, bound, ratio), jnp.where(beyond, 0, ratio)


def penalty(r: Array) -> Array:
    """e^r − 1 − r; near 0, where the difference would lose its digits, the series r²/2 (1 + r/3 (1 + r/4 (1 + …)))."""
    small, series = jnp.clip(r, -0.5, 0.5), jnp.ones_like(r)
    for k in range(16, 2, -1):
        series = 1 + small / k * series
    return jnp.where(jnp.abs(r) < 0.5, small * small / 2 * series, jnp.expm1(r) - r)


def of_advantages(D: Array, A: Array) -> Array:
    """Each action's cotangent, summed over the actions that share an advantage."""
    return jnp.sum(D, axis=tuple(range(A.ndim, D.ndim))).astype(A.dtype)
