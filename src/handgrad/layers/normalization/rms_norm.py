"""RMS norm as a layer."""

from typing import Literal

from jaxtyping import Array, Float, PyTree

from handgrad import rules
from handgrad.factors import Hadamard
from handgrad.layers.layer import Layer
from handgrad.layers.normalization._norm import norm
from handgrad.rule import Rule

__all__ = ["rms_norm"]

Rows = Float[Array, "batch *rest n"]


def rms_norm(*, eps: float = 1e-6, scale: bool = True, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Every row to root mean square 1, then γ: parameters NormParams(gamma, None).

    Args:
      eps: positive number, added to the mean square.
      scale: False omits gamma.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Derivation: docs/derivations/normalization/rms_norm.md
    """

    def forward(x: Rows, gamma: Float[Array, " n"] | None, beta: None) -> tuple[Rows, PyTree]:
        return rules.rms_norm_forward(x, gamma, eps=eps, residuals=residuals)

    def backward(kept: PyTree, dy: Rows) -> tuple[Rows, Hadamard | None, None]:
        return *rules.rms_norm_backward(kept, dy, eps=eps), None

    return norm(Rule(forward, backward), scale, False, name="rms_norm")
