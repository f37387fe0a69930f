"""Rows of rules/pooling.py: lax.reduce_window where it can be differentiated, a stack of slices elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case, fixed, normal
from cases.convolution import per_axis
from handgrad import layers


def reduced(X, value, operation, window, strides, padding):
    axes = X.ndim - 2
    size = per_axis(window, axes)
    strides = size if strides is None else per_axis(strides, axes)
    padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(X, value, operation, (1, *size, 1), (1, *strides, 1), padding)


def max_pool(X, window, strides=None, padding="VALID"):
    return reduced(X, -jnp.inf, jax.lax.max, window, strides, padding)


def average_pool(X, window, strides=None, padding="VALID", count_include_pad=True):
    total = reduced(X, 0.0, jax.lax.add, window, strides, padding)
    if count_include_pad:
        return total / np.prod(per_axis(window, X.ndim - 2))
    return total / reduced(jnp.ones_like(X), 0.0, jax.lax.add, window, strides, padding)


def dilated(reduce):
    """lax's own patches of a plane, feature by feature."""

    def pool(X, window, strides, dilation):
        layout = ("NHWC", "HWIO", "NHWC")
        seen = jax.lax.conv_general_dilated_patches(
            X, window, strides, "VALID", rhs_dilation=dilation, dimension_numbers=layout
        )
        return reduce(seen.reshape(*seen.shape[:-1], X.shape[-1], -1), axis=-1)

    return pool


DILATED = {"window": (2, 3), "strides": (1, 2), "dilation": (3, 2)}
TIES = np.array([0, 1, 1, 0, 2, 2, 2, 1, 0, 0, 0, 0, -1, 3, 3, -1.0]).reshape(1, 4, 4, 1)
OVERLAP = {"window": 3, "strides": 2, "padding": ((1, 0), (2, 1))}

CASES = [
    Case("max_pool", "plane", normal((2, 4, 5, 3)), max_pool, {"window": 2}),
    Case("max_pool", "overlap", normal((2, 5, 6, 2)), max_pool, OVERLAP),
    Case("max_pool", "ties", fixed(TIES), max_pool, {"window": (3, 2), "strides": 1, "residuals": "recompute"}),
    Case("max_pool", "solid", normal((2, 3, 2, 4, 2)), max_pool, {"window": 2, "strides": 1, "padding": "SAME"}),
    Case("max_pool", "dilated", normal((1, 5, 6, 2)), dilated(jnp.max), DILATED),
    Case("average_pool", "plane", normal((2, 4, 5, 3)), average_pool, {"window": 2}),
    Case("average_pool", "overlap", normal((2, 5, 6, 2)), average_pool, OVERLAP),
    Case(
        "average_pool",
        "line",
        normal((2, 5, 2)),
        average_pool,
        {"window": 3, "padding": "SAME", "count_include_pad": False},
    ),
    Case("average_pool", "dilated", normal((1, 5, 6, 2)), dilated(jnp.mean), DILATED),
]

LAYERS = {"max_pool": lambda: layers.max_pool(2), "average_pool": lambda: layers.average_pool(2)}
