"""Normalization over the batch: with the batch's own statistics (training), or with given ones (inference)."""

from typing import Any, NamedTuple

import jax

from handgrad.checks import as_row, check_array, check_cotangent, check_residuals, check_shape
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.rules.normalization._norms import (
    centered_slope,
    check_norm,
    parameter_factors,
    promoted,
    recall,
    reciprocal_root,
    scale_and_shift,
    scaled,
    standardize,
)
from handgrad.rules.rule import Rule

__all__ = [
    "BatchNormInferenceResiduals",
    "BatchNormResiduals",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "batch_norm_inference_backward",
    "batch_norm_inference_forward",
]

Array = jax.Array


class BatchNormResiduals(NamedTuple):
    """One array of X's size, the batch's statistics, and the parameters.

    Attributes:
      X: (batch, ..., n) the input itself under "recompute", otherwise None.
      A: (batch, ..., n) the normalized input X̂ in X's dtype under "save", otherwise None.
      mean: (n,) of all rows, float32 at least, for running averages: no cotangent needs it.
      variance: (n,) of all rows, divided by their number, float32 at least, for running averages.
      R: (n,) the slope 1 / √(variance + eps), which fits where the variance doesn't.
      gamma: (n,) or None.
      beta: (n,) or None: whether there is a dbeta, and in which dtype.
    """

    X: Array | None
    A: Array | None
    mean: Array
    variance: Array
    R: Array
    gamma: Array | None
    beta: Array | None


def batch_norm_forward(
    X: Array, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5, residuals: str = "save"
) -> tuple[Array, BatchNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ is X with each feature moved to mean 0 and scaled to variance 1 over all rows.

    X̂ = (X − mean) / √(variance + eps), mean and variance over every axis but the last: the examples meet here.

    Args:
      X: (batch, ..., n) floating point.
      gamma: (n,) scale, or None.
      beta: (n,) shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X, gamma and beta; residuals, the batch's mean and variance among them.
    Raises:
      InputError: a wrong rank, width or dtype; eps not positive; residuals neither of the two.
    Derivation: docs/derivations/normalization/batch_norm.md (Ioffe and Szegedy, 2015)
    """
    check_norm("batch_norm_forward", X, gamma, beta, eps, residuals)
    A, mean, variance, R = standardize(X, _rows(X.ndim), eps)
    kept = (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))
    Y = scale_and_shift(A, gamma, beta, X)
    return Y, BatchNormResiduals(*kept, mean.reshape(-1), variance.reshape(-1), R.reshape(-1), gamma, beta)


def batch_norm_backward(
    residuals: BatchNormResiduals, dY: Array, *, eps: float = 1e-5
) -> tuple[Array, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over all rows
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    An example's row of dX depends on every example's dY: below this rule, factors are right in sum, and their
    per-example gradients mean nothing.

    Args:
      residuals: BatchNormResiduals of batch_norm_forward.
      dY: (batch, ..., n) cotangent of Y.
      eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, (n,); dbeta: Total, (n,); None for a parameter that is not there.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/batch_norm.md
    """
    X, A, _, _, R, gamma, beta = check_residuals("batch_norm_backward", residuals, BatchNormResiduals)
    kept: Any = X if A is None else A
    axes, R = _rows(kept.ndim), as_row(R, kept.ndim)
    A = recall(X, A, R, axes)
    check_cotangent("batch_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, scaled(dY, gamma), R, axes).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


batch_norm = Rule(batch_norm_forward, batch_norm_backward)


class BatchNormInferenceResiduals(NamedTuple):
    """The operation's own arguments: references, no copies.

    Attributes:
      X: (batch, ..., n) input, for dgamma and dvariance.
      gamma: (n,) or None.
      beta: (n,) or None: whether there is a dbeta, and in which dtype.
      mean: (n,), as given.
      variance: (n,), as given.
    """

    X: Array
    gamma: Array | None
    beta: Array | None
    mean: Array
    variance: Array


def batch_norm_inference_forward(
    X: Array, gamma: Array | None, beta: Array | None, mean: Array, variance: Array, *, eps: float = 1e-5
) -> tuple[Array, BatchNormInferenceResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ with X̂ = (X − mean) / √(variance + eps): batch norm with statistics from elsewhere.

    Every row goes its own way; the examples don't meet.

    Args:
      X: (batch, ..., n) floating point.
      gamma: (n,) scale, or None.
      beta: (n,) shift, or None.
      mean: (n,) running mean.
      variance: (n,) running variance, not negative.
      eps: positive number.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X, gamma and beta, whatever the dtype of the statistics; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; eps not positive.
    Derivation: docs/derivations/normalization/batch_norm.md (Ioffe and Szegedy, 2015)
    """
    where = "batch_norm_inference_forward"
    check_norm(where, X, gamma, beta, eps)
    for name, statistic in (("mean", mean), ("variance", variance)):
        check_array(where, name, statistic)
        check_shape(where, name, statistic, X.shape[-1:], f"to meet X {tuple(X.shape)}")
    A, _ = _with_given(X, mean, variance, eps)
    return scale_and_shift(A, gamma, beta, X), BatchNormInferenceResiduals(X, gamma, beta, mean, variance)


def batch_norm_inference_backward(
    residuals: BatchNormInferenceResiduals, dY: Array, *, eps: float = 1e-5
) -> tuple[Array, Hadamard | None, Total | None, Total, Hadamard]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ, the statistics being given.

        dX = G ∘ 1 rᵀ                  G = dY ∘ 1 γᵀ, r = 1 / √(variance + eps)
        dγ = (X̂ ∘ dY)ᵀ 1               dβ = dYᵀ 1
        dmean = −(G ∘ 1 rᵀ)ᵀ 1         dvariance = −½ (X̂ ∘ G ∘ 1 (r ∘ r)ᵀ)ᵀ 1

    Args:
      residuals: BatchNormInferenceResiduals of batch_norm_inference_forward.
      dY: (batch, ..., n) cotangent of Y.
      eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, dbeta: Total, None for a parameter that is not there; dmean: Total; dvariance:
      Hadamard; all (n,).
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/batch_norm.md
    """
    where = "batch_norm_inference_backward"
    X, gamma, beta, mean, variance = check_residuals(where, residuals, BatchNormInferenceResiduals)
    check_cotangent(where, dY, X.shape, promoted(X, gamma, beta))
    A, R = _with_given(X, mean, variance, eps)
    A, dA = A.astype(promoted(X)), scaled(dY, gamma)
    dX = dA * R
    dmean, dvariance = Total(-dX, mean.dtype), Hadamard(A, -0.5 * dX * R, variance.dtype)
    return dX.astype(promoted(X)), *parameter_factors(A, dY, gamma, beta), dmean, dvariance


batch_norm_inference = Rule(batch_norm_inference_forward, batch_norm_inference_backward)


def _rows(ndim: int) -> tuple[int, ...]:
    """Every axis but the features'."""
    return tuple(range(ndim - 1))


def _with_given(X: Array, mean: Array, variance: Array, eps: float) -> tuple[Array, Array]:
    """X̂ and 1 / √(variance + eps) as a row, in float32 at least."""
    mean, variance = (as_row(a.astype(accumulator(X, a)), X.ndim) for a in (mean, variance))
    R = reciprocal_root(variance, eps)
    return (X - mean) * R, R
