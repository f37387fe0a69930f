"""Tokens in chunks, so that what is large for a token exists for one chunk at a time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad import meshes


def in_chunks(arrays: PyTree[Array], Y: Array, chunk: int, mode: str = "edge") -> PyTree[Array]:
    """(batch, ..., n) as (chunks, chunk, n), the axes of Y one long batch of tokens, of which every chunk has as many
    from each device; the last is filled up with the last token again, or with zeros."""
    places = meshes.places(Y, len(Y))
    length = Y.size // places
    size = max(1, min(chunk // places, length))
    chunks = -(-length // size)

    def split(a: Array) -> Array:
        a = a.reshape(places, length, *a.shape[Y.ndim :])
        a = jnp.pad(a, [(0, 0), (0, chunks * size - length), *[(0, 0)] * (a.ndim - 2)], mode)
        return a.reshape(places, chunks, size, *a.shape[2:])

    def one_long_batch(a: Array) -> Array:
        a = jnp.moveaxis(meshes.along_batch(split, a), 1, 0)
        return a.reshape(len(a), places * size, *a.shape[3:])

    return jax.tree.map(one_long_batch, arrays)


def out_of_chunks(arrays: PyTree[Array], Y: Array) -> PyTree[Array]:
    """The same back: (chunks, chunk, n) as (batch, ..., n)."""
    places = meshes.places(Y, len(Y))

    def join(a: Array) -> Array:
        a = a.reshape(places, a.shape[1] * a.shape[2], *a.shape[3:])[:, : Y.size // places]
        return a.reshape(*Y.shape, *a.shape[2:])

    def whole(a: Array) -> Array:
        of_places = a.reshape(len(a), places, a.shape[1] // places, *a.shape[2:])
        return meshes.along_batch(join, jnp.moveaxis(of_places, 0, 1))

    return jax.tree.map(whole, arrays)
