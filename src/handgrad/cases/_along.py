"""Rows of what runs along an axis or picks from it: one element after the other, or products with one-hot matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Function, Rng, Shape, edge, fixed, normal


def in_turn(f: Callable[[Array, Array], Array]) -> Function:
    """y_t = f(y_{t−1}, x_t) along an axis, element after element."""

    def run(X: Array, axis: int = -1, reverse: bool = False) -> Array:
        elements = list(jnp.moveaxis(X.astype(jnp.promote_types(X.dtype, jnp.float32)), axis, 0))
        outputs: list[Array] = []
        for x in elements[::-1] if reverse else elements:
            outputs.append(f(outputs[-1], x) if outputs else x)
        return jnp.stack(outputs[::-1] if reverse else outputs, axis).astype(X.dtype)

    return run


def cumulative_sum(X: Array, axis: int = -1, reverse: bool = False) -> Array:
    """A product with a triangle of ones."""
    X, n = jnp.moveaxis(X, axis, -1), X.shape[axis]
    ones = jnp.tri(n, dtype=X.dtype) if reverse else jnp.tri(n, dtype=X.dtype).T
    wide = jnp.promote_types(X.dtype, jnp.float32)
    Y = jnp.einsum("...s,st->...t", X, ones, preferred_element_type=wide)
    return jnp.moveaxis(Y, -1, axis).astype(X.dtype)


cumulative_product = in_turn(jnp.multiply)
cumulative_max = in_turn(jnp.maximum)
cumulative_logsumexp = in_turn(jnp.logaddexp)

TIME = normal((3, 4, 2))
FROM_THE_END = {"axis": 1, "reverse": True}
ZEROS = fixed([[2.0, 0, -3, 0.5, 1.5], [0, 1, 0, -2, 1], [1, -2, 4, 3, 0], [-1, 2, -3, 1, 2]])
TIES = fixed([[1.0, 1, 2, -1, 3], [2, 1, 2, 0, -3], [-1, -2, -1, 3, 3], [0, -0.0, -1, 1, 2]])

CUMULATIVE = [
    Case(rules.cumulative_sum, "tokens", TIME, cumulative_sum, peer=lambda X: jnp.cumsum(X, -1)),
    edge(rules.cumulative_sum, "tokens", TIME, cumulative_sum, FROM_THE_END),
    Case(
        rules.cumulative_product, "tokens", TIME, cumulative_product, {"axis": 1}, lambda X, axis: jnp.cumprod(X, axis)
    ),
    edge(rules.cumulative_product, "zeros", ZEROS, cumulative_product),
    edge(rules.cumulative_product, "zeros", ZEROS, cumulative_product, FROM_THE_END),
    Case(rules.cumulative_max, "tokens", TIME, cumulative_max, {"axis": 1}, jax.lax.cummax),
    edge(rules.cumulative_max, "ties", TIES, cumulative_max),
    edge(rules.cumulative_max, "ties", TIES, cumulative_max, FROM_THE_END),
    Case(rules.cumulative_logsumexp, "tokens", TIME, cumulative_logsumexp, {"axis": 1}, jax.lax.cumlogsumexp),
    edge(rules.cumulative_logsumexp, "rows", normal((4, 5), scale=3.0), cumulative_logsumexp, FROM_THE_END),
]


def ranked(X: Array, axis: int = -1, descending: bool = False) -> Array:
    """The sorted elements: each in the place of its rank, the elements that stand before it counted."""
    X, n = jnp.moveaxis(X, axis, -1), X.shape[axis]
    mine, other = jnp.expand_dims(X, -1), jnp.expand_dims(X, -2)
    before = (other > mine) if descending else (other < mine)
    earlier = jnp.expand_dims(jnp.tri(n, k=-1, dtype=bool), tuple(range(X.ndim - 1)))
    rank = jnp.sum(before | ((other == mine) & earlier), axis=-1)
    places = jnp.eye(n, dtype=X.dtype)[rank]
    return jnp.moveaxis(jnp.einsum("...i,...it->...t", X, places), -1, axis)


def top_k(X: Array, k: int) -> Array:
    """The first k of all in order."""
    return ranked(X, descending=True)[..., :k]


def gather(X: Array, indices: Array, axis: int = -1) -> Array:
    """A product with one-hot rows."""
    X, S = jnp.moveaxis(X, axis, -1), jnp.eye(X.shape[axis], dtype=X.dtype)[jnp.moveaxis(indices, axis, -1)]
    return jnp.moveaxis(jnp.einsum("...n,...kn->...k", X, S), -1, axis)


def scatter_add(X: Array, indices: Array, U: Array, axis: int = -1) -> Array:
    """A product with the transposed rows."""
    S, U = jnp.eye(X.shape[axis], dtype=U.dtype)[jnp.moveaxis(indices, axis, -1)], jnp.moveaxis(U, axis, -1)
    wide = jnp.promote_types(jnp.result_type(X, U), jnp.float32)
    sums = jnp.einsum("...k,...kn->...n", U, S, preferred_element_type=wide)
    return (X + jnp.moveaxis(sums, -1, axis)).astype(jnp.result_type(X, U))


def segment_reduce(X: Array, ids: Array, segments: int, reduction: str = "sum") -> Array:
    """Every row against every segment."""
    S = jnp.expand_dims(ids, 2) == jnp.expand_dims(jnp.arange(segments), (0, 1))  # (batch, n, segments)
    if reduction == "max":
        S = jnp.expand_dims(S, tuple(range(3, X.ndim + 1)))
        return jnp.max(jnp.where(S, jnp.expand_dims(X, 2), -jnp.inf), axis=1)
    wide = jnp.promote_types(X.dtype, jnp.float32)
    Y = jnp.einsum("bn...,bns->bs...", X, S.astype(X.dtype), preferred_element_type=wide)
    if reduction == "mean":
        counts = jnp.maximum(jnp.sum(S, axis=1), 1).astype(Y.dtype)
        Y = Y / jnp.expand_dims(counts, tuple(range(2, X.ndim)))
    return Y.astype(X.dtype)


def with_indices(shape: Shape, places: Shape, updates: bool = False) -> Draw:
    """X, indices along whichever axis is of another length in `places`, some of them twice, and numbers to add."""
    n = next((n for n, k in zip(shape, places, strict=True) if n != k), shape[-1])

    def draw(rng: Rng) -> Arrays:
        X, indices = rng.standard_normal(shape), rng.integers(0, n, places)
        return (X, indices, rng.standard_normal(places)) if updates else (X, indices)

    return draw


def with_segments(*rest: int) -> Draw:
    """Three examples of five rows, in three of four segments."""
    ids = np.array([[0, 2, 0, 3, 2], [3, 3, 0, 0, 2], [2, 2, 2, 3, 0]])
    return lambda rng: (rng.standard_normal((3, 5, *rest)), ids)


FULL = np.array([[[1.0, 2], [1, 3], [0, 3]], [[0, 0], [0, 1], [0, 0]]])  # ties in segments
EVERY = np.array([[0, 0, 1], [1, 0, 1]])
EQUAL = fixed([[2.0, 1, 2, 3, 1], [0, -0.0, 0, 1, 1], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]])

SELECTION = [
    Case(rules.sort, "tokens", TIME, ranked, {"axis": 1}, lambda X, axis: jnp.sort(X, axis)),
    edge(rules.sort, "ties", EQUAL, ranked, {"descending": True}),
    edge(rules.sort, "ties", EQUAL, ranked),
    Case(rules.top_k, "tokens", normal((3, 2, 5)), top_k, {"k": 3}, lambda X, k: jax.lax.top_k(X, k)[0]),
    edge(rules.top_k, "ties", EQUAL, top_k, {"k": 2}),
    Case(rules.gather, "tokens", with_indices((3, 4, 2), (3, 6, 2)), gather, {"axis": 1}),
    edge(rules.gather, "rows", with_indices((4, 5), (4, 3)), gather),
    Case(rules.scatter_add, "tokens", with_indices((3, 4, 2), (3, 6, 2), updates=True), scatter_add, {"axis": 1}),
    edge(rules.scatter_add, "rows", with_indices((4, 5), (4, 3), updates=True), scatter_add),
    Case(rules.segment_reduce, "tokens", with_segments(2), segment_reduce, {"segments": 4}),
    edge(rules.segment_reduce, "rows", with_segments(), segment_reduce, {"segments": 4, "reduction": "mean"}),
    edge(rules.segment_reduce, "ties", fixed(FULL, EVERY), segment_reduce, {"segments": 2, "reduction": "max"}),
]
