"""Images, beside lax's own convolutions and windows, in one dimension, two and three."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases._images import (
    Padding,
    Sizes,
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    grid_sample,
    jnp_pad,
    max_pool,
    pad,
    per_axis,
    pixel_shuffle,
    pixel_unshuffle,
    resize,
)
from handgrad.cases.case import Case, Draw, Function, Shape, edge, fixed, normal

LAYOUTS = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def with_bias(Y: Array, b: Array | None) -> Array:
    """Y + b, where there is one."""
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def convolution(
    X: Array,
    K: Array,
    b: Array | None = None,
    strides: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Array:
    """lax's."""
    Y = jax.lax.conv_general_dilated(
        X,
        K,
        per_axis(strides, X),
        padding,
        rhs_dilation=per_axis(dilation, X),
        dimension_numbers=LAYOUTS[X.ndim],
        feature_group_count=groups,
    )
    return with_bias(Y, b)


def transposed_convolution(
    X: Array, K: Array, b: Array | None = None, strides: Sizes = 1, padding: str = "SAME", dilation: Sizes = 1
) -> Array:
    """lax's, which has neither groups nor margins."""
    Y = jax.lax.conv_transpose(
        X,
        K,
        per_axis(strides, X),
        padding,
        rhs_dilation=per_axis(dilation, X),
        dimension_numbers=LAYOUTS[X.ndim],
        transpose_kernel=True,
    )
    return with_bias(Y, b)


def scattered(
    X: Array,
    K: Array,
    b: Array | None,
    strides: int,
    padding: tuple[tuple[int, int]],
    dilation: int,
    groups: int,
    output_padding: int,
) -> Array:
    """One axis, element by element: each x_i adds its kernel, group by group, to a Y with margins."""
    (before, behind), taps, m = padding[0], K.shape[0], X.shape[1]
    whole = strides * (m - 1) + dilation * (taps - 1) + 1
    X, K = (a.reshape(*a.shape[:-1], groups, -1) for a in (X, K))
    Y = jnp.zeros((X.shape[0], whole + output_padding, groups, K.shape[1]), X.dtype)
    for i in range(m):
        for t in range(taps):
            Y = Y.at[:, strides * i + dilation * t].add(jnp.einsum("bgi,ogi->bgo", X[:, i], K[t]))
    return with_bias(Y[:, before : whole + output_padding - behind].reshape(X.shape[0], -1, groups * K.shape[1]), b)


def dilated(reduce: Callable[..., Array]) -> Function:
    """A pool of lax's own patches of a plane, feature by feature."""

    def pool(X: Array, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Array:
        seen = jax.lax.conv_general_dilated_patches(
            X, window, strides, "VALID", rhs_dilation=dilation, dimension_numbers=LAYOUTS[4]
        )
        return reduce(seen.reshape(*seen.shape[:-1], X.shape[-1], -1), axis=-1)

    return pool


def global_average_pool(X: Array) -> Array:
    """The mean over space."""
    return jnp.sum(X.reshape(X.shape[0], -1, X.shape[-1]), 1) / X[0, ..., 0].size


def global_max_pool(X: Array) -> Array:
    """The maximum over space."""
    return jnp.max(X.reshape(X.shape[0], -1, X.shape[-1]), axis=1)


def flatten(X: Array) -> Array:
    """One row for each example."""
    return jnp.stack([x.ravel() for x in X])


CEIL = {"window": (3, 2), "strides": 2, "padding": ((0, 0), (1, 0)), "ceil_mode": True}
TIES = np.array([0, 1, 1, 0, 2, 2, 2, 1, 0, 0, 0, 0, -1, 3, 3, -1.0]).reshape(1, 4, 4, 1)
OVERLAP = {"window": 3, "strides": 2, "padding": ((1, 0), (2, 1))}
DILATED = {"window": (2, 3), "strides": (1, 2), "dilation": (3, 2)}
WITHOUT_PAD = {"window": 3, "padding": "SAME", "count_include_pad": False}


def places(space: Shape, of_places: Shape) -> Draw:
    """Images, and places in them and around."""
    return lambda rng: (rng.standard_normal((2, *space, 2)), rng.uniform(-1.4, 1.4, (2, *of_places, len(space))))


CORNERS = {"align_corners": True}
MARGINS = {"strides": 3, "padding": ((1, 2),), "dilation": 2, "groups": 2, "output_padding": 1}

CASES = [
    Case(rules.convolution, "plane", normal((2, 5, 4, 2), (3, 2, 2, 3), (3,)), convolution),
    Case(
        rules.convolution,
        "line",
        normal((2, 9, 18), (3, 9, 18), (18,)),  # XLA's form: groups of more than eight features
        convolution,
        {"strides": 2, "padding": ((3, 1),), "dilation": 2, "groups": 2},
    ),
    edge(
        rules.convolution,
        "pointwise",
        normal((2, 5, 4, 3), (1, 1, 3, 2), (2,)),
        convolution,
        {"strides": (2, 3), "padding": ((1, 0), (0, 2))},
    ),
    edge(
        rules.convolution,
        "depthwise",
        normal((2, 6, 5, 3), (2, 3, 1, 3)),
        convolution,
        {"strides": (3, 2), "padding": ((0, 0), (2, 1)), "groups": 3},
    ),
    edge(
        rules.convolution,
        "solid",
        normal((2, 3, 4, 3, 3), (2, 1, 2, 3, 27), (27,)),  # XLA's form, with a fourth feature of zeros
        convolution,
        {"strides": (1, 2, 1), "dilation": (2, 1, 1)},
    ),
    Case(
        rules.transposed_convolution,
        "plane",
        normal((2, 3, 2, 3), (3, 2, 2, 3), (2,)),
        transposed_convolution,
        {"strides": (2, 1)},
    ),
    edge(rules.transposed_convolution, "line", normal((2, 4, 4), (2, 3, 4), (6,)), scattered, MARGINS),
    edge(
        rules.transposed_convolution,
        "solid",
        normal((1, 2, 1, 2, 2), (2, 1, 2, 3, 2)),
        transposed_convolution,
        {"strides": (1, 1, 2), "padding": "VALID", "dilation": (2, 1, 1)},
    ),
    Case(rules.max_pool, "plane", normal((2, 4, 5, 3)), max_pool, {"window": 2}),
    Case(rules.max_pool, "overlap", normal((2, 5, 6, 2)), max_pool, OVERLAP),
    edge(rules.max_pool, "ties", fixed(TIES), max_pool, {"window": (3, 2), "strides": 1, "residuals": "recompute"}),
    edge(rules.max_pool, "solid", normal((2, 3, 2, 4, 2)), max_pool, {"window": 2, "strides": 1, "padding": "SAME"}),
    edge(rules.max_pool, "dilated", normal((1, 5, 6, 2)), dilated(jnp.max), DILATED),
    edge(rules.max_pool, "to-the-end", normal((1, 6, 4, 2)), max_pool, CEIL),
    Case(rules.average_pool, "plane", normal((2, 4, 5, 3)), average_pool, {"window": 2}),
    Case(rules.average_pool, "line", normal((2, 5, 2)), average_pool, WITHOUT_PAD),
    edge(rules.average_pool, "overlap", normal((2, 5, 6, 2)), average_pool, {**OVERLAP, "window": 4}),
    edge(rules.average_pool, "dilated", normal((1, 5, 6, 2)), dilated(jnp.mean), DILATED),
    edge(rules.average_pool, "to-the-end", normal((1, 6, 4, 2)), average_pool, CEIL),
    Case(rules.adaptive_average_pool, "plane", normal((2, 4, 5, 3)), adaptive_average_pool, {"size": (2, 3)}),
    edge(rules.adaptive_average_pool, "line", normal((2, 3, 2)), adaptive_average_pool, {"size": 5}),
    edge(rules.adaptive_average_pool, "solid", normal((1, 2, 3, 4, 2)), adaptive_average_pool, {"size": (1, 3, 3)}),
    Case(rules.adaptive_max_pool, "plane", normal((2, 4, 5, 3)), adaptive_max_pool, {"size": (2, 3)}),
    edge(rules.adaptive_max_pool, "ties", fixed(TIES), adaptive_max_pool, {"size": 3}),
    edge(rules.adaptive_max_pool, "line", normal((2, 3, 2)), adaptive_max_pool, {"size": 5}),
    Case(rules.global_average_pool, "plane", normal((2, 3, 4, 5)), global_average_pool),
    edge(rules.global_average_pool, "one-element", normal((3, 1, 2)), global_average_pool),
    Case(rules.global_max_pool, "plane", normal((2, 3, 4, 5)), global_max_pool),
    edge(rules.global_max_pool, "ties", fixed(np.array([1, 2, 1, 0, 1, 2.0]).reshape(1, 3, 2)), global_max_pool),
    Case(rules.resize, "plane", normal((2, 4, 5, 2)), resize, {"size": (6, 3)}),
    edge(rules.resize, "plane", normal((2, 5, 3, 2)), resize, {"size": (3, 7), "method": "cubic"}),
    edge(rules.resize, "plane", normal((2, 5, 4, 1)), resize, {"size": (3, 4), "antialias": False}),
    edge(rules.resize, "line", normal((2, 5, 2)), resize, {"size": 8, "method": "cubic-pytorch", "antialias": False}),
    edge(rules.resize, "corners", normal((2, 5, 3, 2)), resize, {"size": (7, 2), "antialias": False, **CORNERS}),
    edge(rules.resize, "solid", normal((1, 3, 2, 4, 2)), resize, {"size": (5, 4, 3), "method": "nearest"}),
    edge(rules.resize, "plane", normal((2, 3, 5, 2)), resize, {"size": (7, 3), "method": "nearest-pytorch"}),
    # 5 columns, whose centers no 16-bit number hits
    Case(rules.grid_sample, "plane", places((3, 5), (2, 5)), grid_sample),
    edge(rules.grid_sample, "border", places((3, 4), (6,)), grid_sample, {"padding": "border", **CORNERS}),
    edge(rules.grid_sample, "reflection", places((3, 4), (6,)), grid_sample, {"padding": "reflection"}),
    edge(rules.grid_sample, "reflection", places((3,), (9,)), grid_sample, {"padding": "reflection", **CORNERS}),
    edge(rules.grid_sample, "nearest", places((3, 4), (6,)), grid_sample, {"method": "nearest"}),
    edge(rules.grid_sample, "solid", places((2, 3, 2), (4,)), grid_sample, {"padding": "border"}),
    edge(rules.grid_sample, "line", places((4,), (3, 2)), grid_sample, CORNERS),
    Case(rules.pad, "plane", normal((2, 3, 4, 2)), pad, {"padding": ((1, 2), (0, 3)), "mode": "reflect"}, jnp_pad),
    edge(rules.pad, "solid", normal((2, 2, 3, 2, 1)), pad, {"padding": 1, "value": -1.5}),
    *(
        edge(rules.pad, "far", normal((2, 3, 2)), pad, {"padding": ((7, 8),), "mode": mode}, jnp_pad)
        for mode in ("edge", "reflect", "symmetric", "wrap")
    ),
    edge(rules.pad, "one-element", normal((2, 1, 2)), pad, {"padding": ((3, 2),), "mode": "reflect"}, jnp_pad),
    Case(rules.pixel_shuffle, "plane", normal((2, 2, 3, 8)), pixel_shuffle, {"factor": 2}),
    edge(rules.pixel_shuffle, "solid", normal((2, 2, 1, 2, 12)), pixel_shuffle, {"factor": (3, 2, 1)}),
    Case(rules.pixel_unshuffle, "plane", normal((2, 4, 6, 2)), pixel_unshuffle, {"factor": 2}),
    edge(rules.pixel_unshuffle, "line", normal((2, 6, 2)), pixel_unshuffle, {"factor": 3}),
    Case(rules.flatten, "plane", normal((2, 3, 4, 2)), flatten),
    edge(rules.flatten, "rows", normal((3, 2)), flatten),
]
