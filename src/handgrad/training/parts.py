"""One parameter's gradient in a two-phase update: a product for later, or one that is materialized once.

A gradient that is clipped is needed twice, for its norm and for the update. Where that means two products, time is
traded for memory. What is traded is decided from the shapes of its factors, `share_of`.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.factors import Correlation, Factor, Outer, Scatter
from handgrad.factors.base import accumulator, as_rows, weighted
from handgrad.factors.trees import is_sum_within

Parts = tuple[Factor | Array, ...]  # one parameter's factor, or summed gradient, in each micro-batch
OfBatches = list[Array | None]  # the weights of each micro-batch


class Sum(NamedTuple):
    """dW, materialized."""

    dW: Array


class Rows(NamedTuple):
    """dW of a table that few rows were read from.

    Attributes:
      ids: rows of the table, each once; ids outside are none of its rows.
      G: dW in these rows; it is 0 in all others.
    """

    ids: Int[Array, " k"]
    G: Float[Array, "k n"]


Part = Parts | Sum | Rows


def share_of(clipped: bool) -> float:
    """A product is materialized once, and not twice, where it is at most so many times as large as its factor.

    R rows are a factor of R (n + m) numbers for a matrix n × m. Where dW is no larger it takes no memory that the
    factor does not, and exactly there its ghost norm, 2 R² (n + m) operations, costs no less than a second product,
    2 R n m. For a third of these rows the ghost norm costs a third of a product, a ninth of the layer's 6 R n m
    operations. It saves that dW is written and read again; that is worth no more.
    """
    return 3.0 if clipped else 1.0


def once(parts: Parts, weights: OfBatches, clipped: bool, by_rows: bool) -> Part:
    """dW materialized, where a product for later gains nothing.

    A clipped kernel is too, since its norm takes as long as its gradient. A table that fewer tokens than its rows were
    read from has no more rows that are not 0.

    Args:
      by_rows: whether the update of this parameter takes Rows.
    """
    tables = [part for part in parts if isinstance(part, Scatter) and part.ids is not None]
    if len(tables) == len(parts) and (clipped or by_rows):
        tokens = sum(math.prod(table.Delta.shape[:-1]) for table in tables)
        if tokens < tables[0].rows:
            return _touched(tables, weights)
    is_kernel = any(isinstance(kind, Correlation) for kind in jax.tree.leaves(parts, is_leaf=_is_kernel))
    if is_sum_within(parts, share_of(clipped)) or (clipped and is_kernel):
        return Sum(multiply(parts, weights))
    return parts


def multiply(parts: Parts, weights: OfBatches) -> Array:
    """dW = Σ over the micro-batches, in the dtype of the sum."""
    sums = (
        part.accumulate(w) if isinstance(part, Factor) else part.astype(accumulator(part))
        for part, w in zip(parts, weights, strict=True)
    )
    return functools.reduce(operator.add, sums)


def dense(parts: Part, weights: OfBatches, shape: tuple[int, ...]) -> Array:
    """dW of a parameter of this shape."""
    if isinstance(parts, Rows):
        return meshes.segment_sum(parts.G, parts.ids, shape[0])
    return parts.dW if isinstance(parts, Sum) else multiply(parts, weights)


def sq_norm(parts: Part, weights: OfBatches) -> Array:
    """‖dW‖². The rows of an Outer, taken as the tokens of one example, have its ghost norm without AᵀΔ, where that is
    less work and they are on one device, since the Gram matrix takes every pair of rows."""
    if isinstance(parts, Sum | Rows):
        return jnp.sum(parts[-1] ** 2)
    outers = [part for part in parts if isinstance(part, Outer) and meshes.places(part, part.batch) == 1]
    if len(outers) < len(parts):
        return jnp.sum(multiply(parts, weights) ** 2)
    A = jnp.concatenate([as_rows(outer.A) for outer in outers])
    Delta = jnp.concatenate([as_rows(weighted(outer.Delta, w)) for outer, w in zip(outers, weights, strict=True)])
    return Outer(A[None], Delta[None]).sq_norms()[0]


def _touched(tables: Sequence[Scatter], weights: OfBatches) -> Rows:
    """The rows that the tokens of all micro-batches name."""
    ids = jnp.concatenate([jnp.asarray(table.by_token().ids) for table in tables])
    Delta = jnp.concatenate([as_rows(weighted(table.Delta, w)) for table, w in zip(tables, weights, strict=True)])
    return Rows(*Scatter(ids, Delta, tables[0].rows).touched())


def _is_kernel(node: object) -> bool:
    return isinstance(node, Correlation)
