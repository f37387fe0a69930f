"""Sort, top-k, gather and scatter-add: products with matrices of zeros and ones, without the product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_count,
    check_flags,
    check_residuals,
    check_shape,
)
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.sequences._along import added, check_axis, check_indices, taken

__all__ = [
    "GatherResiduals",
    "ScatterAddResiduals",
    "SortResiduals",
    "TopKResiduals",
    "gather",
    "gather_backward",
    "gather_forward",
    "scatter_add",
    "scatter_add_backward",
    "scatter_add_forward",
    "sort",
    "sort_backward",
    "sort_forward",
    "top_k",
    "top_k_backward",
    "top_k_forward",
]

Numbers = Float[Array, "batch *rest n"]
Chosen = Float[Array, "batch *places k"]
Indices = Integer[Array, "batch *places k"]


class SortResiduals(NamedTuple):
    """indices: where in X each element of Y stood, the permutation; outline: X's shape and dtype, of no byte."""

    indices: Int[Array, "batch *rest n"]
    outline: Float[Array, "batch 0 *rest n"]


def sort_forward(X: Numbers, *, axis: int = -1, descending: bool = False) -> tuple[Numbers, SortResiduals]:
    """Y = X sorted along an axis: y = Π x with a permutation Π, the residuals' `indices`. NaN counts as the largest.

    The sort is stable: equal elements stay in their order, and each has its own cotangent.

    Args:
      axis: any but the batch.
      descending: the largest first.
    Derivation: docs/derivations/sequences/selection.md
    """
    where = "sort_forward"
    check_array(where, "X", X, min_ndim=2)
    axis = check_axis(where, X, axis)
    check_flags(where, descending=descending)
    indices = jnp.argsort(X, axis=axis, stable=True, descending=descending).astype(jnp.int32)
    return taken(X, indices, axis), SortResiduals(indices, outline(X))


def sort_backward(residuals: SortResiduals, dY: Numbers, *, axis: int = -1, descending: bool = False) -> tuple[Numbers]:
    """Pull dY back through y = Π x.

        dX = Πᵀ dY        each number back to where it came from

    Derivation: docs/derivations/sequences/selection.md
    """
    where = "sort_backward"
    indices, empty = check_residuals(where, residuals, SortResiduals)
    X = outlined(empty)
    check_cotangent(where, dY, X.shape, X.dtype)
    return (added(X, indices, dY, check_axis(where, X, axis)),)


sort = Rule(sort_forward, sort_backward)


class TopKResiduals(NamedTuple):
    """indices: where in X each element of Y stood; outline: X's shape and dtype, of no byte."""

    indices: Int[Array, "batch *rest k"]
    outline: Float[Array, "batch 0 *rest n"]


def top_k_forward(X: Numbers, *, k: int) -> tuple[Chosen, TopKResiduals]:
    """Y = the k largest of each row, the largest first; their places are the residuals' `indices`.

    Of equal elements the first are taken, as in jax.lax.top_k.

    Derivation: docs/derivations/sequences/selection.md
    """
    where = "top_k_forward"
    check_array(where, "X", X, min_ndim=2)
    check_count(where, "k", k)
    if k > X.shape[-1]:
        raise InputError(f"{where}: k must be at most the length of the last axis, {X.shape[-1]}, got {k}")
    Y, indices = jax.lax.top_k(X, k)
    return Y, TopKResiduals(indices, outline(X))


def top_k_backward(residuals: TopKResiduals, dY: Chosen, *, k: int) -> tuple[Numbers]:
    """Pull dY back through y = S x, S the k rows of a permutation.

        dX = Sᵀ dY        0 where an element was not chosen

    Derivation: docs/derivations/sequences/selection.md
    """
    where = "top_k_backward"
    indices, empty = check_residuals(where, residuals, TopKResiduals)
    X = outlined(empty)
    check_cotangent(where, dY, indices.shape, X.dtype)
    return (added(X, indices, dY, X.ndim - 1),)


top_k = Rule(top_k_forward, top_k_backward)


class GatherResiduals(NamedTuple):
    """indices: as given; outline: X's shape and dtype, of no byte."""

    indices: Indices
    outline: Float[Array, "batch 0 *rest n"]


def gather_forward(X: Numbers, indices: Indices, *, axis: int = -1) -> tuple[Chosen, GatherResiduals]:
    """y_i = x_(index i) along an axis, as jnp.take_along_axis, or torch.gather, has it.

    An index outside 0 … n − 1 can't be seen at trace time. It reads NaN, and no cotangent comes from it; so does a
    negative one.

    Args:
      indices: of X's shape but along the axis.
      axis: any but the batch.
    Derivation: docs/derivations/sequences/selection.md
    """
    where = "gather_forward"
    check_array(where, "X", X, min_ndim=2)
    axis = check_axis(where, X, axis)
    check_indices(where, indices, X, axis)
    return taken(X, indices, axis), GatherResiduals(indices, outline(X))


def gather_backward(residuals: GatherResiduals, dY: Chosen, *, axis: int = -1) -> tuple[Numbers, None]:
    """Pull dY back through y = S x, S with the one-hot row of each index.

        dX = Sᵀ dY        Σ over the places that read an element

    Derivation: docs/derivations/sequences/selection.md
    """
    where = "gather_backward"
    indices, empty = check_residuals(where, residuals, GatherResiduals)
    X = outlined(empty)
    check_cotangent(where, dY, indices.shape, X.dtype)
    return added(X, indices, dY, check_axis(where, X, axis)), None


gather = Rule(gather_forward, gather_backward)


class ScatterAddResiduals(NamedTuple):
    """indices: as given; of_X, of_U: shapes and dtypes, of no byte."""

    indices: Indices
    of_X: Float[Array, "batch 0 *rest n"]
    of_U: Float[Array, "batch 0 *places k"]


def scatter_add_forward(
    X: Numbers, indices: Indices, U: Chosen, *, axis: int = -1
) -> tuple[Numbers, ScatterAddResiduals]:
    """Y = X + Sᵀ U: u_i added to x_(index i) along an axis, in float32 at least, as torch.scatter_add has it.

    What an index outside 0 … n − 1 names is dropped.

    Args:
      indices: of X's shape but along the axis; U has theirs.
      axis: any but the batch.
    Derivation: docs/derivations/sequences/selection.md
    """
    where = "scatter_add_forward"
    check_array(where, "X", X, min_ndim=2)
    axis = check_axis(where, X, axis)
    check_indices(where, indices, X, axis)
    check_array(where, "U", U)
    check_shape(where, "U", U, indices.shape, "(a number for each index)")
    like = jax.ShapeDtypeStruct(X.shape, accumulator(X, U))
    Y = (X.astype(like.dtype) + added(like, indices, U, axis)).astype(jnp.result_type(X, U))
    return Y, ScatterAddResiduals(indices, outline(X), outline(U))


def scatter_add_backward(
    residuals: ScatterAddResiduals, dY: Numbers, *, axis: int = -1
) -> tuple[Numbers, None, Chosen]:
    """Pull dY back through Y = X + Sᵀ U.

        dX = dY        dU = S dY, a gather

    Derivation: docs/derivations/sequences/selection.md
    """
    where = "scatter_add_backward"
    indices, *empty = check_residuals(where, residuals, ScatterAddResiduals)
    X, U = map(outlined, empty)
    check_cotangent(where, dY, X.shape, jnp.result_type(X.dtype, U.dtype))
    dU = taken(dY, indices, check_axis(where, X, axis), outside=0)
    return dY.astype(X.dtype), None, dU.astype(U.dtype)


scatter_add = Rule(scatter_add_forward, scatter_add_backward)
