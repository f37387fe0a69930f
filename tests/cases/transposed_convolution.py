"""Rows of rules/transposed_convolution.py: X spread out and slid over by the kernel turned around, by lax.

For "SAME" and "VALID" without groups, lax.conv_transpose says the same; groups and margins are written out.
"""

import jax
import jax.numpy as jnp

from cases.case import Case, normal
from cases.convolution import SPACE, per_axis
from handgrad import layers


def named_padding(X, K, b=None, strides=1, padding="SAME", dilation=1):
    axes = X.ndim - 2
    space = SPACE[axes]
    Y = jax.lax.conv_transpose(
        X,
        K,
        per_axis(strides, axes),
        padding,
        rhs_dilation=per_axis(dilation, axes),
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        transpose_kernel=True,
    )
    return Y if b is None else Y + b.reshape((1,) * (axes + 1) + b.shape)


def scattered(X, K, b=None, strides=1, padding=((0, 0),), dilation=1, groups=1, output_padding=0):
    """One axis, element by element: each x_i lays its kernel, group by group, onto a Y with margins."""
    (before, behind), taps, m = padding[0], K.shape[0], X.shape[1]
    whole = strides * (m - 1) + dilation * (taps - 1) + 1
    X, K = (a.reshape(*a.shape[:-1], groups, -1) for a in (X, K))
    Y = jnp.zeros((X.shape[0], whole + output_padding, groups, K.shape[1]), X.dtype)
    for i in range(m):
        for t in range(taps):
            Y = Y.at[:, strides * i + dilation * t].add(jnp.einsum("bgi,ogi->bgo", X[:, i], K[t]))
    Y = Y[:, before : whole + output_padding - behind].reshape(X.shape[0], -1, groups * K.shape[1])
    return Y if b is None else Y + b[None, None]


CASES = [
    Case(
        "transposed_convolution",
        "plane",
        normal((2, 3, 2, 3), (3, 2, 2, 3), (2,)),
        named_padding,
        {"strides": (2, 1)},
    ),
    Case(
        "transposed_convolution",
        "line",
        normal((2, 4, 4), (2, 3, 4), (6,)),
        scattered,
        {"strides": 3, "padding": ((1, 2),), "dilation": 2, "groups": 2, "output_padding": 1},
    ),
    Case(
        "transposed_convolution",
        "solid",
        normal((1, 2, 1, 2, 2), (2, 1, 2, 3, 2)),
        named_padding,
        {"strides": (1, 1, 2), "padding": "VALID", "dilation": (2, 1, 1)},
    ),
]

LAYERS = {"transposed_convolution": lambda: layers.transposed_convolution(3, 2)}
