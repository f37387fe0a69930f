"""Cumulative sum, product, maximum and logsumexp: recurrences whose backward passes are one linear recurrence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules._wide import wide
from handgrad.rules.sequences._along import check_axis
from handgrad.rules.sequences._cumulative import pulled
from handgrad.rules.sequences._recurrence import check_scan

__all__ = [
    "CumulativeLogsumexpResiduals",
    "CumulativeMaxResiduals",
    "CumulativeProductResiduals",
    "CumulativeSumResiduals",
    "cumulative_logsumexp",
    "cumulative_logsumexp_backward",
    "cumulative_logsumexp_forward",
    "cumulative_max",
    "cumulative_max_backward",
    "cumulative_max_forward",
    "cumulative_product",
    "cumulative_product_backward",
    "cumulative_product_forward",
    "cumulative_sum",
    "cumulative_sum_backward",
    "cumulative_sum_forward",
]

Numbers = Float[Array, "batch *rest n"]


class CumulativeSumResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte."""

    outline: Float[Array, "batch 0 *rest n"]


def cumulative_sum_forward(
    X: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers, CumulativeSumResiduals]:
    """y_t = x_1 + … + x_t along an axis, in float32 at least.

    Args:
      axis: any but the batch.
      reverse: from the last to the first: y_t = x_t + … + x_n.
    Derivation: docs/derivations/sequences/cumulative.md
    """
    axis = _checked("cumulative_sum_forward", X, axis, reverse)
    return _sum(X, axis, reverse), CumulativeSumResiduals(outline(X))


def cumulative_sum_backward(
    residuals: CumulativeSumResiduals, dY: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers]:
    """Pull dY back through y_t = x_1 + … + x_t.

        dx_t = dy_t + … + dy_n        the same sum from the other end

    Derivation: docs/derivations/sequences/cumulative.md
    """
    where = "cumulative_sum_backward"
    X = outlined(*check_residuals(where, residuals, CumulativeSumResiduals))
    check_cotangent(where, dY, X.shape, X.dtype)
    return (_sum(dY, check_axis(where, X, axis), not reverse),)


cumulative_sum = Rule(cumulative_sum_forward, cumulative_sum_backward)


class CumulativeProductResiduals(NamedTuple):
    """X: by reference; Y: the output, float32 at least."""

    X: Numbers
    Y: Numbers


def cumulative_product_forward(
    X: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers, CumulativeProductResiduals]:
    """y_t = x_1 ⋯ x_t along an axis, in float32 at least.

    Args:
      axis: any but the batch.
      reverse: from the last to the first: y_t = x_t ⋯ x_n.
    Derivation: docs/derivations/sequences/cumulative.md
    """
    axis = _checked("cumulative_product_forward", X, axis, reverse)
    (Xw,) = wide(X)
    Y = jax.lax.cumprod(Xw, axis, reverse)
    return Y.astype(X.dtype), CumulativeProductResiduals(X, Y)


def cumulative_product_backward(
    residuals: CumulativeProductResiduals, dY: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers]:
    """Pull dY back through y_t = x_1 ⋯ x_t.

        r_t = dy_t + x_{t+1} r_{t+1}        dx_t = y_{t−1} r_t        nothing is divided: right at any number of zeros

    Derivation: docs/derivations/sequences/cumulative.md
    """
    where = "cumulative_product_backward"
    X, Y = check_residuals(where, residuals, CumulativeProductResiduals)
    check_cotangent(where, dY, X.shape, X.dtype)
    return (pulled(_of_product, 1, X, Y, dY, check_axis(where, X, axis), reverse),)


cumulative_product = Rule(cumulative_product_forward, cumulative_product_backward)


class CumulativeMaxResiduals(NamedTuple):
    """X, Y: input and output, by reference: which of the two was larger says where a cotangent goes."""

    X: Numbers
    Y: Numbers


def cumulative_max_forward(
    X: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers, CumulativeMaxResiduals]:
    """y_t = max(x_1, …, x_t) along an axis.

    Args:
      axis: any but the batch.
      reverse: from the last to the first: y_t = max(x_t, …, x_n).
    Derivation: docs/derivations/sequences/cumulative.md
    """
    axis = _checked("cumulative_max_forward", X, axis, reverse)
    Y = jax.lax.cummax(X, axis, reverse)
    return Y, CumulativeMaxResiduals(X, Y)


def cumulative_max_backward(
    residuals: CumulativeMaxResiduals, dY: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers]:
    """Pull dY back through y_t = max(y_{t−1}, x_t).

        r_t = dy_t + k_{t+1} r_{t+1}        dx_t = (1 − k_t) r_t        k_t = [y_{t−1} > x_t], half where they are equal

    Two equal maxima have half each, as in autodiff of jax.lax.cummax. Of more the newest has half, the one before half
    of the rest, and so on; jax.lax.cummax shares by the tree of its scan.

    Derivation: docs/derivations/sequences/cumulative.md
    """
    where = "cumulative_max_backward"
    X, Y = check_residuals(where, residuals, CumulativeMaxResiduals)
    check_cotangent(where, dY, X.shape, X.dtype)
    return (pulled(_of_max, jnp.nan, X, Y, dY, check_axis(where, X, axis), reverse),)


cumulative_max = Rule(cumulative_max_forward, cumulative_max_backward)


class CumulativeLogsumexpResiduals(NamedTuple):
    """X: by reference; Y: the output, float32 at least."""

    X: Numbers
    Y: Numbers


def cumulative_logsumexp_forward(
    X: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers, CumulativeLogsumexpResiduals]:
    """y_t = log(e^x_1 + … + e^x_t) along an axis, without overflow for any finite X.

    Args:
      axis: any but the batch.
      reverse: from the last to the first.
    Derivation: docs/derivations/sequences/cumulative.md
    """
    axis = _checked("cumulative_logsumexp_forward", X, axis, reverse)
    (Xw,) = wide(X)
    Y = jax.lax.associative_scan(jnp.logaddexp, Xw, reverse=reverse, axis=axis)
    return Y.astype(X.dtype), CumulativeLogsumexpResiduals(X, Y)


def cumulative_logsumexp_backward(
    residuals: CumulativeLogsumexpResiduals, dY: Numbers, *, axis: int = -1, reverse: bool = False
) -> tuple[Numbers]:
    """Pull dY back through y_t = log(e^y_{t−1} + e^x_t).

        r_t = dy_t + k_{t+1} r_{t+1}        dx_t = e^(x_t − y_t) r_t        k_t = e^(y_{t−1} − y_t)

    0 where y_t is −∞.

    Derivation: docs/derivations/sequences/cumulative.md
    """
    where = "cumulative_logsumexp_backward"
    X, Y = check_residuals(where, residuals, CumulativeLogsumexpResiduals)
    check_cotangent(where, dY, X.shape, X.dtype)
    return (pulled(_of_logsumexp, -jnp.inf, X, Y, dY, check_axis(where, X, axis), reverse),)


cumulative_logsumexp = Rule(cumulative_logsumexp_forward, cumulative_logsumexp_backward)


def _of_product(x: Array, before: Array, y: Array) -> tuple[Array, Array]:
    """The slopes k and s of y = before · x."""
    return x, before


def _of_max(x: Array, before: Array, y: Array) -> tuple[Array, Array]:
    """Of y = max(before, x); a `before` of NaN, of the first element, is neither larger nor equal."""
    k = jnp.where(before > x, 1, jnp.where(before == x, 0.5, 0)).astype(x.dtype)
    return k, 1 - k


def _of_logsumexp(x: Array, before: Array, y: Array) -> tuple[Array, Array]:
    """Of y = log(e^before + e^x)."""
    finite = jnp.where(y == -jnp.inf, 0, y)
    return jnp.exp(before - finite), jnp.exp(x - finite)


def _checked(where: str, X: Array, axis: int, reverse: bool) -> int:
    """The axis, counted from the first."""
    check_array(where, "X", X, min_ndim=2)
    check_scan(where, reverse)
    return check_axis(where, X, axis)


def _sum(X: Array, axis: int, reverse: bool) -> Array:
    """The cumulative sum, in float32 at least, and rounded once."""
    (Xw,) = wide(X)
    return jax.lax.cumsum(Xw, axis, reverse).astype(X.dtype)
