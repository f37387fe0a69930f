"""Normalization over the batch: with the batch's own statistics (training), or with given ones (inference)."""

from typing import NamedTuple

from jaxtyping import Array, Float

from handgrad.checks import as_row, check_array, check_cotangent, check_residuals, check_shape
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.normalization._norms import (
    Features,
    Policy,
    Rows,
    centered_slope,
    check_norm,
    kept,
    parameter_factors,
    promoted,
    recall,
    reciprocal_root,
    scale_and_shift,
    scaled,
    standardize,
)

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


class BatchNormResiduals(NamedTuple):
    """One array of X's size, the batch's statistics, and the parameters.

    Attributes:
      X: the input under "recompute", otherwise None.
      A: the normalized input X̂ in X's dtype under "save", otherwise None.
      mean: of all rows, float32 at least, for running averages: no cotangent needs it.
      variance: of all rows, divided by their number, float32 at least, for running averages.
      R: 1 / √(variance + eps), (1, ..., 1, n), finite where the variance overflows.
      gamma: scale, or None.
      beta: shift, or None: whether there is a dbeta, and in which dtype.
    """

    X: Rows | None
    A: Rows | None
    mean: Features
    variance: Features
    R: Float[Array, "*ones n"]
    gamma: Features | None
    beta: Features | None


def batch_norm_forward(
    X: Rows,
    gamma: Features | None = None,
    beta: Features | None = None,
    *,
    eps: float = 1e-5,
    residuals: Policy = "save",
) -> tuple[Rows, BatchNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ is X with each feature moved to mean 0 and scaled to variance 1 over all rows.

    X̂ = (X − mean) / √(variance + eps), mean and variance over every axis but the last: the examples interact. Y is in
    the promoted dtype of X, gamma and beta; the batch's mean and variance are in the residuals.

    Args:
      gamma, beta: scale and shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Derivation: docs/derivations/normalization/batch_norm.md (Ioffe and Szegedy, 2015)
    """
    check_norm("batch_norm_forward", X, gamma, beta, eps, residuals)
    A, mean, variance, R = standardize(X, _rows(X.ndim), eps)
    statistics = mean.reshape(-1), variance.reshape(-1), R
    return scale_and_shift(A, gamma, beta, X), BatchNormResiduals(*kept(X, A, residuals), *statistics, gamma, beta)


def batch_norm_backward(
    residuals: BatchNormResiduals, dY: Rows, *, eps: float = 1e-5
) -> tuple[Rows, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over all rows
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    An example's row of dX depends on every example's dY: before this rule, factors are right in sum only, not per
    example.

    Derivation: docs/derivations/normalization/batch_norm.md
    """
    X, A, _, _, R, gamma, beta = check_residuals("batch_norm_backward", residuals, BatchNormResiduals)
    axes = _rows(R.ndim)
    A = recall(X, A, R, axes)
    check_cotangent("batch_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, dY, gamma, R, axes).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


batch_norm = Rule(batch_norm_forward, batch_norm_backward)


class BatchNormInferenceResiduals(NamedTuple):
    """The operation's arguments: references, no copies.

    Attributes:
      X: input, for dgamma and dvariance.
      gamma: scale, or None.
      beta: shift, or None: whether there is a dbeta, and in which dtype.
      mean, variance: as given.
    """

    X: Rows
    gamma: Features | None
    beta: Features | None
    mean: Features
    variance: Features


def batch_norm_inference_forward(
    X: Rows, gamma: Features | None, beta: Features | None, mean: Features, variance: Features, *, eps: float = 1e-5
) -> tuple[Rows, BatchNormInferenceResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ with X̂ = (X − mean) / √(variance + eps): batch norm with statistics from elsewhere.

    The rows are independent of each other. Y is in the promoted dtype of X, gamma and beta, whatever the dtype of the
    statistics.

    Args:
      gamma, beta: scale and shift, or None.
      mean, variance: running averages; the variance is not negative.
      eps: positive number.
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
    residuals: BatchNormInferenceResiduals, dY: Rows, *, eps: float = 1e-5
) -> tuple[Rows, Hadamard | None, Total | None, Total, Hadamard]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ, the statistics being given.

        dX = G ∘ 1 rᵀ                  G = dY ∘ 1 γᵀ, r = 1 / √(variance + eps)
        dγ = (X̂ ∘ dY)ᵀ 1               dβ = dYᵀ 1
        dmean = −(G ∘ 1 rᵀ)ᵀ 1         dvariance = −½ (X̂ ∘ G ∘ 1 (r ∘ r)ᵀ)ᵀ 1

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


def _with_given(X: Rows, mean: Features, variance: Features, eps: float) -> tuple[Rows, Float[Array, "*ones n"]]:
    """X̂ and 1 / √(variance + eps) as a row, in float32 at least."""
    mean, variance = (as_row(a.astype(accumulator(X, a)), X.ndim) for a in (mean, variance))
    R = reciprocal_root(variance, eps)
    return (X - mean) * R, R
