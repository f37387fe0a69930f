"""Cells of an axis, each output's own stretch of elements, and their transpose: each element's stretch of outputs."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from handgrad import meshes


class Cells(NamedTuple):
    """Output i reads the elements start_i … stop_i − 1; neither decreases with i. Both are static."""

    start: np.ndarray
    stop: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        return self.stop - self.start

    def transposed(self, n: int) -> "Cells":
        """For each of the n elements the outputs that read it: a stretch too, perhaps an empty one."""
        elements = np.arange(n)
        return Cells(np.searchsorted(self.stop, elements, "right"), np.searchsorted(self.start, elements, "right"))


def read(A: Shaped[Array, "..."], axis: int, cells: Cells, fill: float) -> Shaped[Array, "..."]:
    """What each output reads: the axis becomes two, outputs and taps; `fill` behind the end of a shorter cell."""
    m, k, n = len(cells.start), max(int(cells.sizes.max()), 1), A.shape[axis]
    if (cells.start == k * np.arange(m)).all() and (cells.sizes == k).all() and m * k == n:
        return A.reshape(*A.shape[:axis], m, k, *A.shape[axis + 1 :])
    index = cells.start[:, None] + np.arange(k)
    within = (index < cells.stop[:, None]).reshape(*[1] * axis, m, k, *[1] * (A.ndim - axis - 1))
    take = partial(jnp.take, indices=np.minimum(index, n - 1), axis=axis, mode="clip")
    taken = meshes.along_batch(take, A)
    return taken if within.all() else jnp.where(within, taken, jnp.asarray(fill, A.dtype))


def read_all(A: Shaped[Array, "batch *space n"], cells: Sequence[Cells], fill: float) -> Shaped[Array, "..."]:
    """The same along every axis of space: (batch, *outputs, taps, n), the last axis's taps the fastest."""

    def read_axes(A: Array) -> Array:
        axes = len(cells)
        for a, of_axis in enumerate(cells):
            A = read(A, 1 + 2 * a, of_axis, fill)
        A = A.transpose(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
        return A.reshape(*A.shape[: 1 + axes], math.prod(A.shape[1 + axes : -1]), A.shape[-1])

    return meshes.along_batch(read_axes, A)


def sums(A: Float[Array, "..."], axis: int, cells: Cells) -> Float[Array, "..."]:
    """The sum of each cell along one axis."""
    return jnp.sum(read(A, axis, cells, 0), axis + 1)
