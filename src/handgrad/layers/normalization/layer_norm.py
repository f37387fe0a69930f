"""Layer norm as a layer."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.normalization._norm import norm

__all__ = ["layer_norm"]


def layer_norm(
    *, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: Literal["save", "recompute"] = "save"
) -> Layer:
    """Every row to mean 0 and variance 1, then γ and β: parameters NormParams(gamma, beta).

    Args:
      eps: positive number, added to the variance.
      scale: False omits gamma.
      shift: False omits beta.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Derivation: docs/derivations/normalization/layer_norm.md
    """
    return norm(rules.layer_norm.with_options(eps=eps, residuals=residuals), scale, shift)
