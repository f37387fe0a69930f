"""Convolutions and pools, beside lax's own, and flatten."""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.cli.library.entry import Entry, normal

LAYOUTS = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def convolution(X: Any, K: Any, b: Any = None, groups: int = 1, padding: Any = "SAME", **options: Any) -> Any:
    """lax's."""
    strides, dilation = ((options.get(name, 1),) * (X.ndim - 2) for name in ("strides", "dilation"))
    Y = jax.lax.conv_general_dilated(
        X,
        K,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=LAYOUTS[X.ndim],
        feature_group_count=groups,
    )
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def transposed_convolution(X: Any, K: Any, b: Any = None, strides: int = 1, padding: str = "SAME") -> Any:
    """lax's."""
    steps = (strides,) * (X.ndim - 2)
    Y = jax.lax.conv_transpose(X, K, steps, padding, dimension_numbers=LAYOUTS[X.ndim], transpose_kernel=True)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def max_pool(X: Any, window: int, strides: int | None = None) -> Any:
    """lax's maximum over windows."""
    size, steps = ((1, *(n,) * (X.ndim - 2), 1) for n in (window, strides or window))
    return jax.lax.reduce_window(X, -jnp.inf, jax.lax.max, size, steps, "VALID")


def average_pool(X: Any, window: int, padding: str = "VALID", count_include_pad: bool = True) -> Any:
    """lax's sum over windows, divided by the number of its elements."""
    size = (1, *(window,) * (X.ndim - 2), 1)
    total = jax.lax.reduce_window(X, 0.0, jax.lax.add, size, size, padding)
    counts = jax.lax.reduce_window(jnp.ones_like(X), 0.0, jax.lax.add, size, size, padding)
    return total / (window ** (X.ndim - 2) if count_include_pad else counts)


CONVOLUTION = [
    Entry("convolution", "plane", normal((2, 5, 4, 2), (3, 2, 2, 3), (3,)), convolution, {"strides": 2}),
    Entry(
        "convolution",
        "line",
        normal((2, 9, 4), (3, 2, 2)),
        convolution,
        {"padding": "VALID", "dilation": 2, "groups": 2},
    ),
    Entry(
        "transposed_convolution",
        "plane",
        normal((2, 3, 2, 3), (3, 2, 2, 3), (2,)),
        transposed_convolution,
        {"strides": 2},
    ),
    Entry("max_pool", "plane", normal((2, 5, 4, 2)), max_pool, {"window": 3, "strides": 1}),
    Entry("max_pool", "line", normal((2, 6, 3)), max_pool, {"window": 2, "residuals": "recompute"}),
    Entry("average_pool", "plane", normal((2, 5, 4, 2)), average_pool, {"window": 2}),
    Entry(
        "average_pool",
        "line",
        normal((2, 5, 3)),
        average_pool,
        {"window": 3, "padding": "SAME", "count_include_pad": False},
    ),
    Entry("global_average_pool", "plane", normal((2, 3, 4, 5)), lambda X: jnp.mean(X, (1, 2))),
    Entry("global_max_pool", "plane", normal((2, 3, 4, 5)), lambda X: jnp.max(X, (1, 2))),
    Entry("flatten", "plane", normal((2, 3, 2, 4)), lambda X: X.reshape(X.shape[0], -1)),
]
