"""adaptive_average_pool and adaptive_max_pool as layers: the rules of the same names."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.images._windows import PerAxis

__all__ = ["adaptive_average_pool", "adaptive_max_pool"]


def adaptive_average_pool(size: PerAxis) -> Layer:
    """The mean of each of `size` cells along every axis of space, whatever X's space is."""
    return from_rule(rules.adaptive_average_pool, size=size)


def adaptive_max_pool(size: PerAxis) -> Layer:
    """The maximum of each of `size` cells along every axis of space, whatever X's space is."""
    return from_rule(rules.adaptive_max_pool, size=size)
