"""flatten: between space and a linear layer."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["flatten"]


def flatten() -> Layer:
    """(batch, ...) -> (batch, features)."""
    return from_rule(rules.flatten)
