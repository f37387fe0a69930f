"""global_average_pool and global_max_pool as layers: the rules of the same names."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["global_average_pool", "global_max_pool"]


def global_average_pool() -> Layer:
    """The mean over space: (batch, *space, n) -> (batch, n)."""
    return from_rule(rules.global_average_pool)


def global_max_pool() -> Layer:
    """The maximum over space: (batch, *space, n) -> (batch, n)."""
    return from_rule(rules.global_max_pool)
