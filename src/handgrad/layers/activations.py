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
    return from_rule(rules.identity_forward, rules.identity_backward)


def sigmoid(*, residuals: str = "save") -> Layer:
    """Y = 1 / (1 + e⁻ˣ)."""
    return from_rule(rules.sigmoid_forward, rules.sigmoid_backward, residuals=residuals)


def tanh(*, residuals: str = "save") -> Layer:
    """Y = tanh(X)."""
    return from_rule(rules.tanh_forward, rules.tanh_backward, residuals=residuals)


def softplus() -> Layer:
    """Y = log(1 + eˣ)."""
    return from_rule(rules.softplus_forward, rules.softplus_backward)


def relu(*, residuals: str = "save") -> Layer:
    """Y = max(X, 0)."""
    return from_rule(rules.relu_forward, rules.relu_backward, residuals=residuals)


def leaky_relu(negative_slope: float = 0.01, *, residuals: str = "save") -> Layer:
    """Y = X where X ≥ 0, negative_slope X elsewhere."""
    return from_rule(
        rules.leaky_relu_forward, rules.leaky_relu_backward, negative_slope=negative_slope, residuals=residuals
    )


def elu(alpha: float = 1.0, *, residuals: str = "recompute") -> Layer:
    """Y = X where X > 0, alpha (eˣ − 1) elsewhere."""
    return from_rule(rules.elu_forward, rules.elu_backward, alpha=alpha, residuals=residuals)


def selu(*, residuals: str = "recompute") -> Layer:
    """Y = λ elu(X, α) with the self-normalising constants."""
    return from_rule(rules.selu_forward, rules.selu_backward, residuals=residuals)


def silu(*, residuals: str = "recompute") -> Layer:
    """Y = X ∘ σ(X)."""
    return from_rule(rules.silu_forward, rules.silu_backward, residuals=residuals)


def mish(*, residuals: str = "recompute") -> Layer:
    """Y = X ∘ tanh(softplus(X))."""
    return from_rule(rules.mish_forward, rules.mish_backward, residuals=residuals)


def gelu(approximate: bool = False, *, residuals: str = "recompute") -> Layer:
    """Y = X ∘ Φ(X), exact or in the tanh form."""
    return from_rule(rules.gelu_forward, rules.gelu_backward, approximate=approximate, residuals=residuals)


def softmax() -> Layer:
    """P = eˣ / Σ eˣ along the last axis."""
    return from_rule(rules.softmax_forward, rules.softmax_backward)


def log_softmax() -> Layer:
    """L = log softmax(X) along the last axis."""
    return from_rule(rules.log_softmax_forward, rules.log_softmax_backward)


def logsumexp() -> Layer:
    """Y = log Σ eˣ along the last axis, which is gone from Y."""
    return from_rule(rules.logsumexp_forward, rules.logsumexp_backward)
