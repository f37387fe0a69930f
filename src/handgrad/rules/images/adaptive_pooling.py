"""Adaptive pools: a given number of outputs, each over its own cell of space."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.images._cells import Cells, read_all, sums
from handgrad.rules.images._windows import PerAxis, per_axis

__all__ = [
    "AdaptiveAveragePoolResiduals",
    "AdaptiveMaxPoolResiduals",
    "adaptive_average_pool",
    "adaptive_average_pool_backward",
    "adaptive_average_pool_forward",
    "adaptive_max_pool",
    "adaptive_max_pool_backward",
    "adaptive_max_pool_forward",
]

Images = Float[Array, "batch *space n"]
Outputs = Float[Array, "batch *size n"]


class AdaptiveAveragePoolResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte. The mean is linear: its backward pass needs nothing else."""

    outline: Float[Array, "batch 0 *space n"]


def adaptive_average_pool_forward(X: Images, *, size: PerAxis) -> tuple[Outputs, AdaptiveAveragePoolResiduals]:
    """Y = A_h X A_wᵀ, feature by feature: y_i is the mean of cell i, ⌊i n / m⌋ … ⌈(i + 1) n / m⌉ − 1 along each axis.

    Args:
      size: m, outputs along each axis of space, or an integer for all. 1 is global_average_pool.
    Derivation: docs/derivations/images/adaptive_pooling.md
    """
    of_axes = _cells("adaptive_average_pool_forward", X, size)
    Y = X.astype(accumulator(X))
    for axis, cells in enumerate(of_axes, start=1):
        Y = sums(Y, axis, cells) / _along(cells.sizes, axis, Y)
    return Y.astype(X.dtype), AdaptiveAveragePoolResiduals(outline(X))


def adaptive_average_pool_backward(
    residuals: AdaptiveAveragePoolResiduals, dY: Outputs, *, size: PerAxis
) -> tuple[Images]:
    """Pull dY back through the mean of every cell.

        dX = A_hᵀ dY A_w        dx_j = Σ dy_i / c_i over the cells i that x_j is in, of c_i elements

    Derivation: docs/derivations/images/adaptive_pooling.md
    """
    where = "adaptive_average_pool_backward"
    X = outlined(*check_residuals(where, residuals, AdaptiveAveragePoolResiduals))
    of_axes = _check_output(where, X, size, dY)
    dX = dY.astype(accumulator(dY))
    for axis, cells in enumerate(of_axes, start=1):
        dX = sums(dX / _along(cells.sizes, axis, dX), axis, cells.transposed(X.shape[axis]))
    return (dX.astype(X.dtype),)


adaptive_average_pool = Rule(adaptive_average_pool_forward, adaptive_average_pool_backward)


class AdaptiveMaxPoolResiduals(NamedTuple):
    """Where each cell's maximum is.

    Attributes:
      position: in X's space, its elements counted with the last axis the fastest.
      outline: X's shape and dtype, of no byte.
    """

    position: Int[Array, "batch *size n"]
    outline: Float[Array, "batch 0 *space n"]


def adaptive_max_pool_forward(X: Images, *, size: PerAxis) -> tuple[Outputs, AdaptiveMaxPoolResiduals]:
    """y_i is the maximum of cell i, the cells being adaptive_average_pool's; a cell that has NaN gives NaN.

    Args:
      size: m, outputs along each axis of space, or an integer for all.
    Derivation: docs/derivations/images/adaptive_pooling.md
    """
    of_axes = _cells("adaptive_max_pool_forward", X, size)
    seen = read_all(X, of_axes, -jnp.inf)
    tap = jnp.expand_dims(jnp.argmax(seen, -2).astype(jnp.int32), -2)
    Y = meshes.along_batch(lambda seen, tap: jnp.take_along_axis(seen, tap, -2), seen, tap)
    position, stride = jnp.zeros_like(tap), 1
    for axis in reversed(range(1, X.ndim - 1)):
        cells = of_axes[axis - 1]
        taps = max(int(cells.sizes.max()), 1)
        position += stride * (_along(cells.start, axis, tap) + tap % taps)
        tap, stride = tap // taps, stride * X.shape[axis]
    return jnp.squeeze(Y, -2), AdaptiveMaxPoolResiduals(jnp.squeeze(position, -2), outline(X))


def adaptive_max_pool_backward(residuals: AdaptiveMaxPoolResiduals, dY: Outputs, *, size: PerAxis) -> tuple[Images]:
    """Pull dY back through the maximum of every cell.

        dx_j = Σ dy_i    over the cells i whose maximum is x_j

    Of several equal maxima the first gets all, in the order of the elements, as in max_pool; of a cell with NaN its
    first NaN.

    Derivation: docs/derivations/images/adaptive_pooling.md
    """
    where = "adaptive_max_pool_backward"
    position, empty = check_residuals(where, residuals, AdaptiveMaxPoolResiduals)
    X = outlined(empty)
    of_axes = _check_output(where, X, size, dY)
    space = X.shape[1:-1]
    back = [cells.transposed(n) for cells, n in zip(of_axes, space, strict=True)]
    element = jnp.arange(np.prod(space), dtype=jnp.int32).reshape(1, *space, 1, 1)
    given = read_all(dY.astype(accumulator(dY)), back, 0)
    dX = jnp.sum(jnp.where(read_all(position, back, -1) == element, given, jnp.zeros_like(given)), -2)
    return (dX.astype(X.dtype),)


adaptive_max_pool = Rule(adaptive_max_pool_forward, adaptive_max_pool_backward)


def _cells(where: str, X: Array | jax.ShapeDtypeStruct, size: PerAxis) -> list[Cells]:
    """The cells of each axis of X's space."""
    check_array(where, "X", X)
    if len(X.shape) < 3 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n), space not empty, got {describe(X)}")
    outputs = per_axis(where, "size", size, len(X.shape) - 2)
    places = ((np.arange(m), m, n) for m, n in zip(outputs, X.shape[1:-1], strict=True))
    return [Cells(i * n // m, -(-(i + 1) * n // m)) for i, m, n in places]


def _check_output(where: str, X: jax.ShapeDtypeStruct, size: PerAxis, dY: Array) -> list[Cells]:
    """The cells, where dY is the cotangent of their outputs."""
    of_axes = _cells(where, X, size)
    check_cotangent(where, dY, (X.shape[0], *(len(cells.start) for cells in of_axes), X.shape[-1]), X.dtype)
    return of_axes


def _along(values: np.ndarray, axis: int, A: Array) -> Array:
    """Numbers for each index of one axis of A, of as many axes as A."""
    return jnp.asarray(values.reshape([-1 if i == axis else 1 for i in range(A.ndim)]), A.dtype)
