"""What cases/images.py compares with, but for convolutions: pools, and images that are moved and resampled."""

import itertools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.cases.case import Function

Sizes = int | tuple[int, ...]
Padding = str | tuple[tuple[int, int], ...]


def per_axis(value: Sizes, X: Array) -> tuple[int, ...]:
    """A number for each axis of space."""
    return (value,) * (X.ndim - 2) if isinstance(value, int) else value


BEYOND = ((0, 0), (0, 1), (0, 1), (0, 0))  # what the last windows of CEIL meet behind (6, 4) and their padding


def reduced(X: Array, start: float, operation: Any, window: Sizes, strides: Sizes | None, padding: Padding) -> Array:
    """lax.reduce_window over the axes of space."""
    size = per_axis(window, X)
    steps = size if strides is None else per_axis(strides, X)
    padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(X, start, operation, (1, *size, 1), (1, *steps, 1), padding)


def max_pool(
    X: Array, window: Sizes, strides: Sizes | None = None, padding: Padding = "VALID", ceil_mode: bool = False
) -> Array:
    """lax's maximum over windows; with ceil_mode, of an X with what they meet beyond."""
    X = jnp.pad(X, BEYOND, constant_values=-jnp.inf) if ceil_mode else X
    return reduced(X, -jnp.inf, jax.lax.max, window, strides, padding)


def average_pool(
    X: Array,
    window: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> Array:
    """lax's sum over windows, divided by the number of its elements."""
    if ceil_mode:
        pairs: Any = ((0, 0), *padding, (0, 0))
        counted = jnp.pad(jnp.ones_like(X), pairs, constant_values=float(count_include_pad))
        counted = reduced(jnp.pad(counted, BEYOND), 0.0, jax.lax.add, window, strides, "VALID")
        return reduced(jnp.pad(X, BEYOND), 0.0, jax.lax.add, window, strides, padding) / counted
    total = reduced(X, 0.0, jax.lax.add, window, strides, padding)
    if count_include_pad:
        return total / np.prod(per_axis(window, X))
    return total / reduced(jnp.ones_like(X), 0.0, jax.lax.add, window, strides, padding)


def pixel_shuffle(X: Array, factor: Any) -> Array:
    """Each of the r^axes places of a block from its own slice of the features."""
    factors = per_axis(factor, X)
    places = list(np.ndindex(*factors))
    fine = tuple(size * r for size, r in zip(X.shape[1:-1], factors, strict=True))
    Y = jnp.zeros((X.shape[0], *fine, X.shape[-1] // len(places)), X.dtype)
    for k, place in enumerate(places):
        blocks = tuple(slice(i, None, r) for i, r in zip(place, factors, strict=True))
        Y = Y.at[(slice(None), *blocks)].set(X[..., k :: len(places)])
    return Y


def pixel_unshuffle(X: Array, factor: Any) -> Array:
    """Every r-th element along each axis, from each of the places of a block in turn."""
    factors = per_axis(factor, X)
    parts = [
        X[(slice(None), *(slice(i, None, r) for i, r in zip(place, factors, strict=True)))]
        for place in np.ndindex(*factors)
    ]
    return jnp.stack(parts, axis=-1).reshape(*parts[0].shape[:-1], -1)


def pad(X: Array, padding: Any, mode: str = "constant", value: float = 0.0) -> Array:
    """Every axis by a matrix that has a 1 where an element is copied, read off from NumPy's pad of 0, 1, 2 …"""
    for axis, n in enumerate(X.shape[1:-1], start=1):
        pair = (padding, padding) if isinstance(padding, int) else padding[axis - 1]
        if mode == "constant":
            copied = np.pad(np.arange(n), pair, constant_values=n)
        else:
            copied = np.pad(np.arange(n), pair, mode=cast(Any, mode))
        P = (copied[:, None] == np.arange(n)).astype(float)
        margin = jnp.asarray((copied == n).reshape(-1, *[1] * (X.ndim - 1 - axis)), X.dtype)
        X = jnp.moveaxis(jnp.tensordot(jnp.asarray(P, X.dtype), X, (1, axis)), 0, axis)
        X = X + value * jnp.broadcast_to(margin, X.shape)
    return X


def jnp_pad(X: Array, padding: Any, mode: str = "constant") -> Array:
    """jnp.pad of the axes of space."""
    pairs = ((padding, padding),) * (X.ndim - 2) if isinstance(padding, int) else padding
    return jnp.pad(X, ((0, 0), *pairs, (0, 0)), mode)


def resize(X: Array, size: Any, method: str = "linear", antialias: bool = True, align_corners: bool = False) -> Array:
    """jax.image's, and what it doesn't have by two neighbors or by one."""
    size = per_axis(size, X)
    if method != "nearest-pytorch" and not align_corners:
        return jax.image.resize(X, (X.shape[0], *size, X.shape[-1]), method, antialias)
    for axis, m in enumerate(size, start=1):
        n = X.shape[axis]
        if method == "nearest-pytorch":
            X = jnp.take(X, np.floor(np.arange(m) * n / m).astype(int), axis)
        else:
            place = np.linspace(0, n - 1, m)
            left = np.minimum(np.floor(place), n - 2).astype(int)
            share = jnp.asarray((place - left).reshape(-1, *[1] * (X.ndim - 1 - axis)), X.dtype)
            one, two = jnp.take(X, left, axis), jnp.take(X, left + 1, axis)
            share = jnp.broadcast_to(share, one.shape)
            X = (1 - share) * one + share * two
    return X


def adaptive(reduce: Callable[[Array], Array]) -> Function:
    """A pool of cells, cut out one by one: `reduce` makes (batch, n) of a cell's (batch, elements, n)."""

    def pool(X: Array, size: Any) -> Array:
        size = per_axis(size, X)
        axes = [
            [slice(int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m))) for i in range(m)]
            for m, n in zip(size, X.shape[1:-1], strict=True)
        ]
        cells = [X[(slice(None), *cell)] for cell in itertools.product(*axes)]
        pooled = [reduce(cell.reshape(cell.shape[0], -1, cell.shape[-1])) for cell in cells]
        return jnp.stack(pooled, 1).reshape(X.shape[0], *size, X.shape[-1])

    return pool


def first_maximum(cell: Array) -> Array:
    """The first of the largest elements, feature by feature."""
    return jnp.take_along_axis(cell, jnp.argmax(cell, 1, keepdims=True), 1)[:, 0]


adaptive_average_pool = adaptive(lambda cell: jnp.sum(cell, 1) / cell.shape[1])
adaptive_max_pool = adaptive(first_maximum)


def grid_sample(
    X: Array, grid: Array, method: str = "linear", padding: str = "zeros", align_corners: bool = False
) -> Array:
    """Every element of an axis weighs by its distance, a tent of width 2 or one of the nearest: dense matrices. What
    is reflected is read of a padded image."""
    dtype = jnp.result_type(X, grid)
    batch, *space, n = X.shape
    around = [2 * size if padding == "reflection" else 0 for size in space]  # even, as the nearest of two alike
    if padding == "reflection":
        pairs = [(0, 0), *((width, width) for width in around), (0, 0)]
        X = jnp.pad(X, pairs, "reflect" if align_corners else "symmetric")
    Y = jnp.expand_dims(X.astype(dtype), 1)  # (batch, places, *space, n), of which axis after axis is summed
    for axis, size in enumerate(space):
        g = grid[..., len(space) - 1 - axis].reshape(batch, -1).astype(dtype)
        place = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        place = jnp.clip(place, 0, size - 1) if padding == "border" else place
        elements = jnp.arange(-around[axis], size + around[axis]).reshape(1, 1, -1)
        if method == "nearest":
            weights = jnp.expand_dims(jnp.round(place), -1) == elements
        else:
            weights = jnp.maximum(1 - jnp.abs(jnp.expand_dims(place, -1) - elements), 0)
        weights = weights.astype(dtype).reshape(*weights.shape, *[1] * (Y.ndim - 3))
        Y = jnp.sum(jnp.broadcast_to(weights, (*weights.shape[:3], *Y.shape[3:])) * Y, axis=2)
    return Y.reshape(*grid.shape[:-1], n)
