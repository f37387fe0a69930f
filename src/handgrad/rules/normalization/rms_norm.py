"""RMS norm: each row is scaled to root mean square 1."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_cotangent, check_residuals
from handgrad.factors import Hadamard
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.normalization._norms import (
    Features,
    Policy,
    Rows,
    check_norm,
    kept,
    parameter_factors,
    promoted,
    reciprocal_root,
    scale_and_shift,
    scaled,
    scaled_mean,
    shrinking,
)

__all__ = ["RmsNormResiduals", "rms_norm", "rms_norm_backward", "rms_norm_forward"]


class RmsNormResiduals(NamedTuple):
    """One array of X's size, a number for each row, and the parameter.

    Attributes:
      X: the input under "recompute", otherwise None.
      A: the normalized input X̂ in X's dtype under "save", otherwise None.
      R: 1 / √(mean(X ∘ X) + eps) of each row, float32 at least.
      gamma: scale, or None.
    """

    X: Rows | None
    A: Rows | None
    R: Float[Array, "batch *rest 1"]
    gamma: Features | None


def rms_norm_forward(
    X: Rows, gamma: Features | None = None, *, eps: float = 1e-6, residuals: Policy = "save"
) -> tuple[Rows, RmsNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ, where X̂ is X with each row scaled to root mean square 1: X̂ = X / √(mean(X ∘ X) + eps).

    Args:
      gamma: scale, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Derivation: docs/derivations/normalization/rms_norm.md (Zhang and Sennrich, 2019)
    """
    check_norm("rms_norm_forward", X, gamma, None, eps, residuals)
    shrink = shrinking(X, eps)
    square = jnp.mean(jnp.square(X.astype(accumulator(X)) * shrink), -1, keepdims=True)
    R = reciprocal_root(square, eps, shrink)
    A = X * R
    return scale_and_shift(A, gamma, None, X), RmsNormResiduals(*kept(X, A, residuals), R, gamma)


def rms_norm_backward(residuals: RmsNormResiduals, dY: Rows, *, eps: float = 1e-6) -> tuple[Rows, Hadamard | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ.

        dX = (G − X̂ ∘ mean(G ∘ X̂)) / √(mean(X ∘ X) + eps)      G = dY ∘ 1 γᵀ, means along each row
        dγ = (X̂ ∘ dY)ᵀ 1

    Derivation: docs/derivations/normalization/rms_norm.md
    """
    X, A, R, gamma = check_residuals("rms_norm_backward", residuals, RmsNormResiduals)
    if X is not None:
        A = (X * R).astype(promoted(X))
    assert A is not None
    check_cotangent("rms_norm_backward", dY, A.shape, promoted(A, gamma))
    dX = R * (scaled(dY, gamma) - A * scaled_mean(A * dY.astype(accumulator(dY)), gamma, -1))
    return dX.astype(A.dtype), parameter_factors(A, dY, gamma, None)[0]


rms_norm = Rule(rms_norm_forward, rms_norm_backward)
