"""Pools over all of space: one number for each feature."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined

__all__ = [
    "GlobalAveragePoolResiduals",
    "GlobalMaxPoolResiduals",
    "global_average_pool",
    "global_average_pool_backward",
    "global_average_pool_forward",
    "global_max_pool",
    "global_max_pool_backward",
    "global_max_pool_forward",
]

Images = Float[Array, "batch *space n"]
Rows = Float[Array, "batch n"]


class GlobalAveragePoolResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte. The mean is linear: its backward pass needs nothing else."""

    outline: Float[Array, "batch 0 *space n"]


def global_average_pool_forward(X: Images) -> tuple[Rows, GlobalAveragePoolResiduals]:
    """y = (1 / N) Σ_j x_j over the N elements of space, feature by feature.

    Derivation: docs/derivations/images/global_pooling.md (Lin, Chen and Yan 2014)
    """
    axes = _space("global_average_pool_forward", X)
    return jnp.mean(X, axes, dtype=accumulator(X)).astype(X.dtype), GlobalAveragePoolResiduals(outline(X))


def global_average_pool_backward(residuals: GlobalAveragePoolResiduals, dY: Rows) -> tuple[Images]:
    """Pull dY back through the mean over space.

        dx_j = dy / N

    Derivation: docs/derivations/images/global_pooling.md
    """
    where = "global_average_pool_backward"
    X = outlined(*check_residuals(where, residuals, GlobalAveragePoolResiduals))
    check_cotangent(where, dY, (X.shape[0], X.shape[-1]), X.dtype)
    axes = tuple(range(1, len(X.shape) - 1))
    share = dY / math.prod(X.shape[1:-1])
    return (jnp.broadcast_to(jnp.expand_dims(share, axes), X.shape),)


global_average_pool = Rule(global_average_pool_forward, global_average_pool_backward)


class GlobalMaxPoolResiduals(NamedTuple):
    """X and Y, the two sides of the comparison that finds the maxima again."""

    X: Images
    Y: Rows


def global_max_pool_forward(X: Images) -> tuple[Rows, GlobalMaxPoolResiduals]:
    """y = max_j x_j over space, feature by feature; NaN wherever there is one.

    Derivation: docs/derivations/images/global_pooling.md
    """
    axes = _space("global_max_pool_forward", X)
    Y = jnp.max(X, axes)
    return Y, GlobalMaxPoolResiduals(X, Y)


def global_max_pool_backward(residuals: GlobalMaxPoolResiduals, dY: Rows) -> tuple[Images]:
    """Pull dY back through the maximum over space.

        dX = dY ∘ [X = Y] / Σ [X = Y]

    Equal maxima share, as in autodiff of jnp.max (max_pool's don't). Where the maximum is NaN, every share is 0 / 0:
    NaN, or 0 where XLA simplifies the quotient, again as for jnp.max.

    Derivation: docs/derivations/images/global_pooling.md
    """
    X, Y = check_residuals("global_max_pool_backward", residuals, GlobalMaxPoolResiduals)
    check_cotangent("global_max_pool_backward", dY, Y.shape, Y.dtype)
    axes = tuple(range(1, X.ndim - 1))
    Y, dY = jnp.expand_dims(Y, axes), jnp.expand_dims(dY, axes)
    is_maximum = (X == Y).astype(accumulator(X))
    shares = is_maximum / jnp.sum(is_maximum, axes, keepdims=True)
    return ((dY * shares).astype(X.dtype),)


global_max_pool = Rule(global_max_pool_forward, global_max_pool_backward)


def _space(where: str, X: Array) -> tuple[int, ...]:
    """The axes of X's space."""
    check_array(where, "X", X)
    if len(X.shape) < 3 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n), space not empty, got {describe(X)}")
    return tuple(range(1, X.ndim - 1))
