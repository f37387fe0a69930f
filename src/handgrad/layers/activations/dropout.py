"""dropout: the layer that uses its key."""

from typing import Any

from handgrad.checks import InputError, check_choice, describe
from handgrad.layers.layer import Layer
from handgrad.rules.activations.dropout import POLICIES, check_rate, dropout_backward, dropout_forward

__all__ = [
    "dropout",
]


def dropout(rate: float, *, residuals: str = "save") -> Layer:
    """Y = X ∘ M / (1 − rate) with a key, M being 1 with probability 1 − rate; without a key Y = X.

    Args:
      rate: the probability of being dropped, in [0, 1).
      residuals: "save" keeps the mask, "recompute" the key.
    Raises:
      InputError: rate outside [0, 1); residuals is neither of the two; at trace time, params other than (), and as
        dropout_forward and dropout_backward.
    Derivation: docs/derivations/activations/dropout.md
    """
    check_rate("dropout", rate)
    check_choice("dropout", "residuals", residuals, POLICIES)

    def init(key: Any, x: Any) -> tuple[()]:
        return ()

    def forward(params, x, key=None):
        if not (isinstance(params, tuple) and len(params) == 0):
            raise InputError(f"dropout: params must be (), got {describe(params)}")
        return dropout_forward(x, key, rate=rate, residuals=residuals)

    def backward(residuals, dy):
        dx, _ = dropout_backward(residuals, dy, rate=rate)
        return dx, ()

    return Layer(init, forward, backward)
