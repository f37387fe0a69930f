"""Rows of rules/convolution.py: lax's own convolution, with its own padding, in one dimension, two and three."""

import jax

from cases.case import Case, normal
from handgrad import layers

SPACE = {1: "W", 2: "HW", 3: "DHW"}


def per_axis(value, axes):
    return (value,) * axes if isinstance(value, int) else value


def convolution(X, K, b=None, strides=1, padding="SAME", dilation=1, groups=1):
    axes = X.ndim - 2
    space = SPACE[axes]
    Y = jax.lax.conv_general_dilated(
        X,
        K,
        per_axis(strides, axes),
        padding,
        rhs_dilation=per_axis(dilation, axes),
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )
    return Y if b is None else Y + b.reshape((1,) * (axes + 1) + b.shape)


CASES = [
    Case("convolution", "plane", normal((2, 5, 4, 2), (3, 2, 2, 3), (3,)), convolution),
    Case(
        "convolution",
        "line",
        normal((2, 9, 4), (3, 2, 2), (2,)),
        convolution,
        {"strides": 2, "padding": ((3, 1),), "dilation": 2, "groups": 2},
    ),
    Case(
        "convolution",
        "depthwise",
        normal((2, 6, 5, 2), (2, 3, 1, 4)),
        convolution,
        {"strides": (3, 2), "padding": "VALID", "groups": 2},
    ),
    Case(
        "convolution",
        "solid",
        normal((2, 3, 4, 3, 2), (2, 1, 2, 2, 1), (1,)),
        convolution,
        {"strides": (1, 2, 1), "dilation": (2, 1, 1)},
    ),
]

LAYERS = {"convolution": lambda: layers.convolution(3, 2)}
