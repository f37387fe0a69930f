"""dropout: the layer that uses its key."""

from typing import Literal

from jaxtyping import Array, Float, PRNGKeyArray

from handgrad.checks import InputError, check_choice, describe
from handgrad.layers.layer import Layer
from handgrad.rules.activations.dropout import POLICIES, DropoutResiduals, check_rate, dropout_backward, dropout_forward

__all__ = ["dropout"]

Elements = Float[Array, "batch *rest"]


def dropout(rate: float, *, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = X ∘ M / (1 − rate) with a key, M being 1 with probability 1 − rate; without a key Y = X.

    Args:
      rate: the probability of being dropped, in [0, 1).
      residuals: "save" keeps the mask, "recompute" the key.
    Derivation: docs/derivations/activations/dropout.md
    """
    check_rate("dropout", rate)
    check_choice("dropout", "residuals", residuals, POLICIES)

    def init(key: PRNGKeyArray, x: Elements) -> tuple[()]:
        return ()

    def forward(params: tuple[()], x: Elements, key: PRNGKeyArray | None = None) -> tuple[Elements, DropoutResiduals]:
        if not (isinstance(params, tuple) and len(params) == 0):
            raise InputError(f"dropout: params must be (), got {describe(params)}")
        return dropout_forward(x, key, rate=rate, residuals=residuals)

    def backward(kept: DropoutResiduals, dy: Elements) -> tuple[Elements, tuple[()]]:
        dx, _ = dropout_backward(kept, dy, rate=rate)
        return dx, ()

    return Layer(init, forward, backward)
