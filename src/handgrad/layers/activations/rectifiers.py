"""Rectifiers as layers without parameters: the rule of the same name, with its options."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["elu", "leaky_relu", "relu", "selu"]


def relu(*, residuals: Literal["save", "mask"] = "save") -> Layer:
    """Y = max(X, 0)."""
    return from_rule(rules.relu, residuals=residuals)


def leaky_relu(negative_slope: float = 0.01, *, residuals: Literal["save", "mask"] = "save") -> Layer:
    """Y = X where X ≥ 0, negative_slope X elsewhere."""
    return from_rule(rules.leaky_relu, negative_slope=negative_slope, residuals=residuals)


def elu(alpha: float = 1.0, *, residuals: Literal["recompute", "save"] = "recompute") -> Layer:
    """Y = X where X > 0, alpha (eˣ − 1) elsewhere."""
    return from_rule(rules.elu, alpha=alpha, residuals=residuals)


def selu(*, residuals: Literal["recompute", "save"] = "recompute") -> Layer:
    """Y = λ elu(X, α) with the self-normalizing constants."""
    return from_rule(rules.selu, residuals=residuals)
