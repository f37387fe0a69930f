"""Layer norm: each row is moved to mean 0 and scaled to variance 1."""

from typing import NamedTuple

from jaxtyping import Array, Float

from handgrad.checks import check_cotangent, check_residuals
from handgrad.factors import Hadamard, Total
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
    scale_and_shift,
    standardize,
)

__all__ = ["LayerNormResiduals", "layer_norm", "layer_norm_backward", "layer_norm_forward"]


class LayerNormResiduals(NamedTuple):
    """One array of X's size, a number for each row, and the parameters.

    Attributes:
      X: the input under "recompute", otherwise None.
      A: the normalized input X̂ in X's dtype under "save", otherwise None.
      R: 1 / √(variance + eps) of each row, float32 at least.
      gamma: scale, or None.
      beta: shift, or None: whether there is a dbeta, and in which dtype.
    """

    X: Rows | None
    A: Rows | None
    R: Float[Array, "batch *rest 1"]
    gamma: Features | None
    beta: Features | None


def layer_norm_forward(
    X: Rows,
    gamma: Features | None = None,
    beta: Features | None = None,
    *,
    eps: float = 1e-5,
    residuals: Policy = "save",
) -> tuple[Rows, LayerNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ is X with each row moved to mean 0 and scaled to variance 1.

    X̂ = (X − mean) / √(variance + eps), mean and variance along the last axis (the variance divides by n). Y is in the
    promoted dtype of X, gamma and beta.

    Args:
      gamma, beta: scale and shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Derivation: docs/derivations/normalization/layer_norm.md (Ba, Kiros and Hinton, 2016)
    """
    check_norm("layer_norm_forward", X, gamma, beta, eps, residuals)
    A, _, _, R = standardize(X, -1, eps)
    return scale_and_shift(A, gamma, beta, X), LayerNormResiduals(*kept(X, A, residuals), R, gamma, beta)


def layer_norm_backward(
    residuals: LayerNormResiduals, dY: Rows, *, eps: float = 1e-5
) -> tuple[Rows, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means along each row
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Derivation: docs/derivations/normalization/layer_norm.md
    """
    X, A, R, gamma, beta = check_residuals("layer_norm_backward", residuals, LayerNormResiduals)
    A = recall(X, A, R, -1)
    check_cotangent("layer_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, dY, gamma, R, -1).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


layer_norm = Rule(layer_norm_forward, layer_norm_backward)
