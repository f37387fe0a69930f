"""Smooth monotone activations as layers without parameters: the rule of the same name, with its options."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["identity", "sigmoid", "softplus", "tanh"]


def identity() -> Layer:
    """Y = X."""
    return from_rule(rules.identity)


def sigmoid(*, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = 1 / (1 + e⁻ˣ)."""
    return from_rule(rules.sigmoid, residuals=residuals)


def tanh(*, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """Y = tanh(X)."""
    return from_rule(rules.tanh, residuals=residuals)


def softplus(*, residuals: Literal["save", "recompute"] = "recompute") -> Layer:
    """Y = log(1 + eˣ)."""
    return from_rule(rules.softplus, residuals=residuals)
