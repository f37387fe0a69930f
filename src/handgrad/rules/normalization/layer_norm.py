"""Normalization of every row for itself: layer norm and RMS norm."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
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
    shrinking,
    standardize,
)
from handgrad.rules.rule import Rule

__all__ = [
    "LayerNormResiduals",
    "RmsNormResiduals",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
]

Array = jax.Array


class LayerNormResiduals(NamedTuple):
    """One array of X's size, numbers for each row, and the parameters.

    Attributes:
      X: (batch, ..., n) the input itself under "recompute", otherwise None.
      A: (batch, ..., n) the normalized input X̂ in X's dtype under "save", otherwise None.
      R: (batch, ..., 1) the slope 1 / √(variance + eps) of each row, float32 at least.
      gamma: (n,) or None.
      beta: (n,) or None: whether there is a dbeta, and in which dtype.
    """

    X: Array | None
    A: Array | None
    R: Array
    gamma: Array | None
    beta: Array | None


def layer_norm_forward(
    X: Array, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5, residuals: str = "save"
) -> tuple[Array, LayerNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ is X with each row moved to mean 0 and scaled to variance 1.

    X̂ = (X − mean) / √(variance + eps), mean and variance along the last axis (the variance divides by n).

    Args:
      X: (batch, ..., n) floating point.
      gamma: (n,) scale, or None.
      beta: (n,) shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X, gamma and beta; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; eps not positive; residuals neither of the two.
    Derivation: docs/derivations/normalization/layer_norm.md (Ba, Kiros and Hinton, 2016)
    """
    check_norm("layer_norm_forward", X, gamma, beta, eps, residuals)
    A, _, _, R = standardize(X, -1, eps)
    kept = (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))
    return scale_and_shift(A, gamma, beta, X), LayerNormResiduals(*kept, R, gamma, beta)


def layer_norm_backward(
    residuals: LayerNormResiduals, dY: Array, *, eps: float = 1e-5
) -> tuple[Array, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means along each row
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Args:
      residuals: LayerNormResiduals of layer_norm_forward.
      dY: (batch, ..., n) cotangent of Y.
      eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, (n,); dbeta: Total, (n,); None for a parameter that is not there.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/layer_norm.md
    """
    X, A, R, gamma, beta = check_residuals("layer_norm_backward", residuals, LayerNormResiduals)
    A = recall(X, A, R, -1)
    check_cotangent("layer_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, scaled(dY, gamma), R, -1).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


layer_norm = Rule(layer_norm_forward, layer_norm_backward)


class RmsNormResiduals(NamedTuple):
    """One array of X's size, a number for each row, and the parameter.

    Attributes:
      X: (batch, ..., n) the input itself under "recompute", otherwise None.
      A: (batch, ..., n) the normalized input X̂ in X's dtype under "save", otherwise None.
      R: (batch, ..., 1) the slope 1 / √(mean(X ∘ X) + eps) of each row, float32 at least.
      gamma: (n,) or None.
    """

    X: Array | None
    A: Array | None
    R: Array
    gamma: Array | None


def rms_norm_forward(
    X: Array, gamma: Array | None = None, *, eps: float = 1e-6, residuals: str = "save"
) -> tuple[Array, RmsNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ, where X̂ is X with each row scaled to root mean square 1: X̂ = X / √(mean(X ∘ X) + eps).

    Args:
      X: (batch, ..., n) floating point.
      gamma: (n,) scale, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X and gamma; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; eps not positive; residuals neither of the two.
    Derivation: docs/derivations/normalization/layer_norm.md (Zhang and Sennrich, 2019)
    """
    check_norm("rms_norm_forward", X, gamma, None, eps, residuals)
    shrink = shrinking(X, eps)
    square = jnp.mean(jnp.square(X.astype(accumulator(X)) * shrink), -1, keepdims=True)
    R = reciprocal_root(square, eps, shrink)
    A = X * R
    kept = (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))
    return scale_and_shift(A, gamma, None, X), RmsNormResiduals(*kept, R, gamma)


def rms_norm_backward(residuals: RmsNormResiduals, dY: Array, *, eps: float = 1e-6) -> tuple[Array, Hadamard | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ.

        dX = (G − X̂ ∘ mean(G ∘ X̂)) / √(mean(X ∘ X) + eps)      G = dY ∘ 1 γᵀ, means along each row
        dγ = (X̂ ∘ dY)ᵀ 1

    Args:
      residuals: RmsNormResiduals of rms_norm_forward.
      dY: (batch, ..., n) cotangent of Y.
      eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, (n,), or None where there was no scale.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/layer_norm.md
    """
    X, A, R, gamma = check_residuals("rms_norm_backward", residuals, RmsNormResiduals)
    kept: Any = X if A is None else A
    A = (kept * R).astype(promoted(kept)) if A is None else kept
    check_cotangent("rms_norm_backward", dY, A.shape, promoted(A, gamma))
    G = scaled(dY, gamma)
    dX = R * (G - A * jnp.mean(G * A, -1, keepdims=True))
    return dX.astype(A.dtype), parameter_factors(A, dY, gamma, None)[0]


rms_norm = Rule(rms_norm_forward, rms_norm_backward)
