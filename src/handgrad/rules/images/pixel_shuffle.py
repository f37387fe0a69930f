"""pixel_shuffle and pixel_unshuffle: from features to space and back (depth to space, space to depth)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, describe
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.images._windows import PerAxis, per_axis

__all__ = [
    "PixelShuffleResiduals",
    "PixelUnshuffleResiduals",
    "pixel_shuffle",
    "pixel_shuffle_backward",
    "pixel_shuffle_forward",
    "pixel_unshuffle",
    "pixel_unshuffle_backward",
    "pixel_unshuffle_forward",
]

Coarse = Float[Array, "batch *coarse many"]
Fine = Float[Array, "batch *fine few"]


class PixelShuffleResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte."""

    outline: Float[Array, "batch 0 *coarse many"]


def pixel_shuffle_forward(X: Coarse, *, factor: PerAxis) -> tuple[Fine, PixelShuffleResiduals]:
    """Y has r times as many elements along each axis of space, and X's n r^axes features become n.

    In a plane y_{r h + i, r w + j} has the features f r² + i r + j of x_{h, w}, f = 0 … n − 1: PyTorch's order, and
    that of `einops.rearrange(X, "b h w (n i j) -> b (h i) (w j) n")`. (TensorFlow's depth_to_space has f innermost.)

    Args:
      factor: r, an integer for every axis of space, or one for each.
    Derivation: docs/derivations/images/pixel_shuffle.md (Shi et al. 2016)
    """
    where = "pixel_shuffle_forward"
    return _to_space(X, _factors(where, X, factor, of_space=False)), PixelShuffleResiduals(outline(X))


def pixel_shuffle_backward(residuals: PixelShuffleResiduals, dY: Fine, *, factor: PerAxis) -> tuple[Coarse]:
    """Pull dY back through pixel_shuffle, a permutation S of the elements: its transpose is its inverse.

        dX = Sᵀ dY = pixel_unshuffle(dY)

    Derivation: docs/derivations/images/pixel_shuffle.md
    """
    where = "pixel_shuffle_backward"
    X = outlined(*check_residuals(where, residuals, PixelShuffleResiduals))
    factors = _factors(where, X, factor, of_space=False)
    space = tuple(n * r for n, r in zip(X.shape[1:-1], factors, strict=True))
    check_cotangent(where, dY, (X.shape[0], *space, X.shape[-1] // math.prod(factors)), X.dtype)
    return (_to_features(dY, factors),)


pixel_shuffle = Rule(pixel_shuffle_forward, pixel_shuffle_backward)


class PixelUnshuffleResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte."""

    outline: Float[Array, "batch 0 *fine few"]


def pixel_unshuffle_forward(X: Fine, *, factor: PerAxis) -> tuple[Coarse, PixelUnshuffleResiduals]:
    """The inverse of pixel_shuffle: a block of r elements along every axis of space becomes n r^axes features of one.

    Args:
      factor: r, an integer for every axis of space, or one for each; divides the axis.
    Derivation: docs/derivations/images/pixel_shuffle.md
    """
    where = "pixel_unshuffle_forward"
    return _to_features(X, _factors(where, X, factor, of_space=True)), PixelUnshuffleResiduals(outline(X))


def pixel_unshuffle_backward(residuals: PixelUnshuffleResiduals, dY: Coarse, *, factor: PerAxis) -> tuple[Fine]:
    """Pull dY back through pixel_unshuffle, whose matrix is Sᵀ.

        dX = S dY = pixel_shuffle(dY)

    Derivation: docs/derivations/images/pixel_shuffle.md
    """
    where = "pixel_unshuffle_backward"
    X = outlined(*check_residuals(where, residuals, PixelUnshuffleResiduals))
    factors = _factors(where, X, factor, of_space=True)
    space = tuple(n // r for n, r in zip(X.shape[1:-1], factors, strict=True))
    check_cotangent(where, dY, (X.shape[0], *space, X.shape[-1] * math.prod(factors)), X.dtype)
    return (_to_space(dY, factors),)


pixel_unshuffle = Rule(pixel_unshuffle_forward, pixel_unshuffle_backward)


def _to_space(X: Coarse, factors: Sequence[int]) -> Fine:
    """S X."""
    return meshes.along_batch(partial(_moved_to_space, factors=factors), X)


def _to_features(Y: Fine, factors: Sequence[int]) -> Coarse:
    """Sᵀ Y."""
    return meshes.along_batch(partial(_moved_to_features, factors=factors), Y)


def _moved_to_space(X: Coarse, factors: Sequence[int]) -> Fine:
    """(batch, h, w, n r r′) as (batch, h, w, n, r, r′), its axes moved to (batch, h, r, w, r′, n)."""
    batch, *space, many = X.shape
    axes, n = len(space), many // math.prod(factors)
    X = X.reshape(batch, *space, n, *factors)
    X = X.transpose(0, *(axis for i in range(axes) for axis in (1 + i, 2 + axes + i)), 1 + axes)
    return X.reshape(batch, *(size * r for size, r in zip(space, factors, strict=True)), n)


def _moved_to_features(Y: Fine, factors: Sequence[int]) -> Coarse:
    """The same steps, backward."""
    batch, *space, n = Y.shape
    axes, coarse = len(space), [size // r for size, r in zip(space, factors, strict=True)]
    Y = Y.reshape(batch, *(size for pair in zip(coarse, factors, strict=True) for size in pair), n)
    Y = Y.transpose(0, *range(1, 2 * axes, 2), 2 * axes + 1, *range(2, 2 * axes + 1, 2))
    return Y.reshape(batch, *coarse, n * math.prod(factors))


def _factors(where: str, X: Array | jax.ShapeDtypeStruct, factor: PerAxis, of_space: bool) -> tuple[int, ...]:
    """r along each axis of X's space; they divide the axes of space, or their product divides the features."""
    check_array(where, "X", X)
    if len(X.shape) < 3:
        raise InputError(f"{where}: X must have shape (batch, *space, n), got {describe(X)}")
    factors = per_axis(where, "factor", factor, len(X.shape) - 2)
    if of_space and any(size % r for size, r in zip(X.shape[1:-1], factors, strict=True)):
        raise InputError(f"{where}: X's space must be a multiple of factor {factors}, got {describe(X)}")
    if not of_space and X.shape[-1] % math.prod(factors):
        raise InputError(f"{where}: X must have a multiple of {math.prod(factors)} features, got {describe(X)}")
    return factors
