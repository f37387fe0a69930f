"""max_pool and average_pool as layers: the rules of the same names."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.images._windows import Padding, PerAxis

__all__ = ["average_pool", "max_pool"]


def max_pool(
    window: PerAxis,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    residuals: Literal["save", "recompute"] = "save",
) -> Layer:
    """y_i = the largest element that window i sees; without strides, windows don't overlap."""
    return from_rule(
        rules.max_pool,
        window=window,
        strides=strides,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        residuals=residuals,
    )


def average_pool(
    window: PerAxis,
    *,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Layer:
    """y_i = the mean of what window i sees; without strides, windows don't overlap."""
    return from_rule(
        rules.average_pool,
        window=window,
        strides=strides,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
