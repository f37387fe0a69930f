"""Self-gated activations as layers without parameters: the rule of the same name, with its options."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["gelu", "mish", "silu"]


def silu(*, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = X ∘ σ(X)."""
    return from_rule(rules.silu, residuals=residuals)


def mish(*, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = X ∘ tanh(softplus(X))."""
    return from_rule(rules.mish, residuals=residuals)


def gelu(approximate: bool = False, *, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = X ∘ Φ(X), exact or in the tanh form."""
    return from_rule(rules.gelu, approximate=approximate, residuals=residuals)
