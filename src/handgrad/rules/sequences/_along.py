"""Operations along one axis of an example: the axis as the middle one of three, (batch, n, rest)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from handgrad import meshes
from handgrad.checks import InputError, describe, is_integer
from handgrad.factors.base import accumulator
from handgrad.factors.scatter import named_rows

Middle = Shaped[Array, "batch n rest"]


def check_axis(where: str, X: Array | jax.ShapeDtypeStruct, axis: int) -> int:
    """`axis`, counted from the first: any axis of X but the batch."""
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -X.ndim < axis < X.ndim or axis == 0:
        raise InputError(f"{where}: axis must be one of X's behind the batch, got {axis!r} for {describe(X)}")
    return int(axis) % X.ndim


def to_middle(X: Array, axis: int) -> Middle:
    """X with its axis at 1, and all others but the batch as one behind it."""
    moved = jnp.moveaxis(X, axis, 1)
    return moved.reshape(*moved.shape[:2], math.prod(moved.shape[2:]))


def from_middle(A: Middle, axis: int, shape: tuple[int, ...]) -> Array:
    """The inverse, of a result of this shape."""
    others = [n for i, n in enumerate(shape) if i not in (0, axis)]
    return jnp.moveaxis(A.reshape(*A.shape[:2], *others), 1, axis)


def check_indices(where: str, indices: Array, X: Array, axis: int) -> None:
    """`indices` are integers of X's shape but along the axis."""
    shape = tuple(getattr(indices, "shape", ()))
    expected = (*X.shape[:axis], "k", *X.shape[axis + 1 :])
    fits = len(shape) == X.ndim and all(m in (n, "k") for n, m in zip(shape, expected, strict=True))
    if not (is_integer(indices) and fits):
        axes = ", ".join(map(str, expected))
        raise InputError(f"{where}: indices must be integers ({axes}), as X along other axes, got {describe(indices)}")


def taken(X: Array, indices: Array, axis: int, outside: float = jnp.nan) -> Array:
    """The elements along an axis that indices name; `outside` where there is no such element."""

    def of_one(x: Array, index: Array) -> Array:
        return jnp.take_along_axis(x, index, axis=0, mode="fill", fill_value=outside)

    named = named_rows(to_middle(jnp.asarray(indices), axis), X.shape[axis])
    return from_middle(
        meshes.along_batch(jax.vmap(of_one), to_middle(jnp.asarray(X), axis), named), axis, indices.shape
    )


def added(like: jax.ShapeDtypeStruct, indices: Array, values: Array, axis: int) -> Array:
    """Zeros of this shape and dtype, and each value added where its index is, in float32 at least; the transpose of
    `taken`. What an index names that isn't there is dropped."""

    def of_one(index: Array, value: Array) -> Array:
        zeros = jnp.zeros((like.shape[axis], value.shape[1]), value.dtype)
        return zeros.at[index, jnp.arange(value.shape[1])[None]].add(value, mode="drop")

    named = named_rows(to_middle(jnp.asarray(indices), axis), like.shape[axis])
    wide = to_middle(jnp.asarray(values), axis).astype(accumulator(values, like))
    return from_middle(meshes.along_batch(jax.vmap(of_one), named, wide), axis, like.shape).astype(like.dtype)
