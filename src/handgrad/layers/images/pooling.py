"""Pools as layers without parameters: the rule of the same name, with its options."""

from collections.abc import Sequence
from typing import Any

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = [
    "average_pool",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
]


def max_pool(
    window: int | Sequence[int],
    *,
    strides: Any = None,
    padding: Any = "VALID",
    dilation: Any = 1,
    residuals: str = "save",
) -> Layer:
    """y_i = the largest element that window i sees; without strides, windows stand one beside the other."""
    options = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
    return from_rule(rules.max_pool, residuals=residuals, **options)


def average_pool(
    window: int | Sequence[int],
    *,
    strides: Any = None,
    padding: Any = "VALID",
    dilation: Any = 1,
    count_include_pad: bool = True,
) -> Layer:
    """y_i = the mean of what window i sees; without strides, windows stand one beside the other."""
    options = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
    return from_rule(rules.average_pool, count_include_pad=count_include_pad, **options)


def global_average_pool() -> Layer:
    """The mean over space: (batch, *space, n) -> (batch, n)."""
    return from_rule(rules.global_average_pool)


def global_max_pool() -> Layer:
    """The maximum over space: (batch, *space, n) -> (batch, n)."""
    return from_rule(rules.global_max_pool)
