"""The softmax family as layers without parameters: the rule of the same name."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax() -> Layer:
    """P = eˣ / Σ eˣ along the last axis."""
    return from_rule(rules.softmax)


def log_softmax() -> Layer:
    """L = log softmax(X) along the last axis."""
    return from_rule(rules.log_softmax)


def logsumexp() -> Layer:
    """Y = log Σ eˣ along the last axis, which Y does not have."""
    return from_rule(rules.logsumexp)
