"""Segments: the rows of an example that have one id, reduced to one row."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_cotangent,
    check_count,
    check_residuals,
    describe,
    is_integer,
)
from handgrad.factors.base import accumulator
from handgrad.factors.scatter import named_rows
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined

__all__ = ["SegmentReduceResiduals", "segment_reduce", "segment_reduce_backward", "segment_reduce_forward"]

Rows = Float[Array, "batch n *rest"]
Segments = Float[Array, "batch segments *rest"]
Ids = Integer[Array, "batch n"]
Reduction = Literal["sum", "mean", "max"]


class SegmentReduceResiduals(NamedTuple):
    """What the reduction's slope needs, by reference but for the counts.

    Attributes:
      ids: as given.
      outline: X's shape and dtype, of no byte.
      X, Y: input and output with "max", None otherwise.
    """

    ids: Ids
    outline: Float[Array, "batch 0 n *rest"]
    X: Rows | None
    Y: Segments | None


def segment_reduce_forward(
    X: Rows, ids: Ids, *, segments: int, reduction: Reduction = "sum"
) -> tuple[Segments, SegmentReduceResiduals]:
    """y_s = the sum, mean or maximum of the rows x_i whose id is s, example by example.

    A segment without rows has a sum and a mean of 0, and a maximum of −∞. A row whose id is outside 0 … segments − 1
    belongs to none, and its cotangent is 0.

    Args:
      segments: how many there are.
      reduction: "sum" and "mean" run in float32 at least.
    Derivation: docs/derivations/sequences/segments.md
    """
    where = "segment_reduce_forward"
    check_array(where, "X", X, min_ndim=2)
    if not (is_integer(ids) and tuple(ids.shape) == tuple(X.shape[:2])):
        raise InputError(f"{where}: ids must be integers {tuple(X.shape[:2])}, one for each row, got {describe(ids)}")
    check_count(where, "segments", segments)
    check_choice(where, "reduction", reduction, ("sum", "mean", "max"))
    if reduction == "max":
        Y = _reduced(X, ids, segments, largest=True)
        return Y, SegmentReduceResiduals(ids, outline(X), X, Y)
    Y = _reduced(X.astype(accumulator(X)), ids, segments)
    Y = Y if reduction == "sum" else Y / _counts(ids, segments, Y)
    return Y.astype(X.dtype), SegmentReduceResiduals(ids, outline(X), None, None)


def segment_reduce_backward(
    residuals: SegmentReduceResiduals, dY: Segments, *, segments: int, reduction: Reduction = "sum"
) -> tuple[Rows, None]:
    """Pull dY back through the rows of each segment; S is the matrix of one-hot rows of the ids, n the rows of each.

        sum: dX = S dY        mean: dX = S (dY / n)        max: dX = M ∘ S (dY / m)

    M is 1 where a row has its segment's maximum and m counts them: equal maxima share, as in jnp.max.

    Derivation: docs/derivations/sequences/segments.md
    """
    where = "segment_reduce_backward"
    ids, empty, X, Y = check_residuals(where, residuals, SegmentReduceResiduals)
    like = outlined(empty)
    check_cotangent(where, dY, (like.shape[0], segments, *like.shape[2:]), like.dtype)
    D = dY.astype(accumulator(dY))
    if reduction == "mean":
        D = D / _counts(ids, segments, D)
    if X is None or Y is None:
        return _read(D, ids).astype(like.dtype), None
    M = (_read(Y, ids) == X).astype(D.dtype)
    shared = D / jnp.maximum(_reduced(M, ids, segments), 1)
    return jnp.where(M > 0, _read(shared, ids), 0).astype(like.dtype), None


segment_reduce = Rule(segment_reduce_forward, segment_reduce_backward)


def _reduced(X: Rows, ids: Ids, segments: int, largest: bool = False) -> Segments:
    """Sᵀ X, or each segment's largest."""

    def of_one(x: Array, rows: Array) -> Array:
        start = jnp.full((segments, *x.shape[1:]), -jnp.inf if largest else 0, x.dtype)
        return start.at[rows].max(x, mode="drop") if largest else start.at[rows].add(x, mode="drop")

    return meshes.along_batch(jax.vmap(of_one), X, named_rows(ids, segments))


def _read(Y: Segments, ids: Ids) -> Rows:
    """S Y: its segment's for every row; 0 for a row of none."""

    def of_one(y: Array, rows: Array) -> Array:
        return y.at[rows].get(mode="fill", fill_value=0)

    return meshes.along_batch(jax.vmap(of_one), Y, named_rows(ids, Y.shape[1]))


def _counts(ids: Ids, segments: int, like: Array) -> Float[Array, "batch segments ..."]:
    """The rows of each segment, 1 at least, against an array of `like`'s rank and dtype."""
    ones = jnp.ones_like(ids, like.dtype)
    return jnp.expand_dims(jnp.maximum(_reduced(ones, ids, segments), 1), tuple(range(2, like.ndim)))
