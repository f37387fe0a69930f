"""Every activation as a layer without parameters: the rule of the same name, with its options.

Where a rule can keep one thing or another for its backward pass, `residuals` says which: docs/rules.md has the bytes.
"""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = [
    "elu",
    "gelu",
    "identity",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]


def identity() -> Layer:
    """Y = X."""
    return from_rule(rules.identity)


def sigmoid(*, residuals: str = "save") -> Layer:
    """Y = 1 / (1 + e⁻ˣ)."""
    return from_rule(rules.sigmoid, residuals=residuals)


def tanh(*, residuals: str = "save") -> Layer:
    """Y = tanh(X)."""
    return from_rule(rules.tanh, residuals=residuals)


def softplus() -> Layer:
    """Y = log(1 + eˣ)."""
    return from_rule(rules.softplus)


def relu(*, residuals: str = "save") -> Layer:
    """Y = max(X, 0)."""
    return from_rule(rules.relu, residuals=residuals)


def leaky_relu(negative_slope: float = 0.01, *, residuals: str = "save") -> Layer:
    """Y = X where X ≥ 0, negative_slope X elsewhere."""
    return from_rule(rules.leaky_relu, negative_slope=negative_slope, residuals=residuals)


def elu(alpha: float = 1.0, *, residuals: str = "recompute") -> Layer:
    """Y = X where X > 0, alpha (eˣ − 1) elsewhere."""
    return from_rule(rules.elu, alpha=alpha, residuals=residuals)


def selu(*, residuals: str = "recompute") -> Layer:
    """Y = λ elu(X, α) with the self-normalizing constants."""
    return from_rule(rules.selu, residuals=residuals)


def silu(*, residuals: str = "recompute") -> Layer:
    """Y = X ∘ σ(X)."""
    return from_rule(rules.silu, residuals=residuals)


def mish(*, residuals: str = "recompute") -> Layer:
    """Y = X ∘ tanh(softplus(X))."""
    return from_rule(rules.mish, residuals=residuals)


def gelu(approximate: bool = False, *, residuals: str = "recompute") -> Layer:
    """Y = X ∘ Φ(X), exact or in the tanh form."""
    return from_rule(rules.gelu, approximate=approximate, residuals=residuals)


def softmax() -> Layer:
    """P = eˣ / Σ eˣ along the last axis."""
    return from_rule(rules.softmax)


def log_softmax() -> Layer:
    """L = log softmax(X) along the last axis."""
    return from_rule(rules.log_softmax)


def logsumexp() -> Layer:
    """Y = log Σ eˣ along the last axis, which is gone from Y."""
    return from_rule(rules.logsumexp)
