"""PyTorch's convolutions, plain and transposed: values and every gradient in float64, option by option.

PyTorch has features behind the batch and kernels as (n_out, n_in / groups, *size): axes move, numbers don't.
"""

import numpy as np
import pytest
from helpers import together
from in_torch import F, assert_close, in_torch, normal

from handgrad import rules


def to_torch(X):
    """(batch, *space, n) -> (batch, n, *space)."""
    return np.ascontiguousarray(np.moveaxis(X, -1, 1))


def from_torch(X):
    return np.moveaxis(X, 1, -1)


def kernel_to_torch(K):
    """(*size, one, other) -> (other, one, *size): a convolution's kernel and a transposed one's alike."""
    return np.ascontiguousarray(np.moveaxis(K, (-1, -2), (0, 1)))


def kernel_from_torch(K):
    return np.moveaxis(K, (0, 1), (-1, -2))


CONVOLUTIONS = {
    # space, n_in, n_out, size, options
    "1d": ((7,), 3, 2, (3,), {}),
    "1d-strides": ((9,), 2, 3, (4,), {"stride": 3, "padding": 2}),
    "1d-dilation": ((9,), 2, 3, (3,), {"dilation": 3, "padding": 4}),
    "1d-groups": ((6,), 4, 6, (2,), {"groups": 2}),
    "1d-depthwise": ((6,), 3, 6, (3,), {"groups": 3, "stride": 2, "padding": 1}),
    "1d-same": ((6,), 2, 2, (4,), {"padding": "same", "dilation": 2}),
    "2d": ((5, 4), 2, 3, (3, 2), {}),
    "2d-strides": ((6, 7), 2, 3, (3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "2d-strides beyond the window": ((7, 8), 2, 1, (2, 1), {"stride": (4, 3)}),
    "2d-dilation": ((7, 6), 2, 2, (3, 2), {"dilation": (2, 3), "padding": (3, 0)}),
    "2d-groups": ((4, 4), 6, 4, (2, 3), {"groups": 2, "padding": (0, 1)}),
    "2d-depthwise": ((5, 5), 3, 3, (3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "2d-everything": ((8, 7), 4, 6, (3, 2), {"groups": 2, "padding": (2, 1), "stride": (2, 3), "dilation": (2, 1)}),
    "2d-same": ((5, 4), 2, 2, (2, 3), {"padding": "same"}),
    "2d-valid": ((5, 4), 2, 2, (2, 3), {"padding": "valid"}),
    "3d": ((3, 4, 3), 2, 2, (2, 3, 2), {}),
    "3d-everything": (
        (5, 4, 5),
        4,
        4,
        (2, 2, 3),
        {"groups": 4, "padding": (1, 0, 2), "stride": (2, 1, 3), "dilation": (1, 3, 2)},
    ),
}


TRANSPOSED = {
    "1d": ((4,), 3, 2, (3,), {}),
    "1d-output padding": ((4,), 2, 3, (4,), {"stride": 3, "padding": 2, "output_padding": 2}),
    "1d-groups": ((4,), 4, 6, (2,), {"groups": 2, "stride": 2, "output_padding": 1}),
    "2d": ((3, 2), 2, 3, (3, 2), {}),
    "2d-strides": ((3, 4), 2, 3, (3, 3), {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2)}),
    "2d-dilation": ((3, 4), 2, 2, (3, 2), {"dilation": (2, 3), "padding": (3, 0)}),
    "2d-depthwise": ((3, 3), 3, 3, (3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "2d-strides beyond the window": ((3, 2), 2, 1, (2, 1), {"stride": (4, 3), "output_padding": (3, 0)}),
    "3d-everything": (
        (2, 3, 2),
        4,
        2,
        (2, 2, 3),
        {"groups": 2, "padding": (1, 0, 2), "stride": (2, 1, 3), "dilation": (1, 3, 2), "output_padding": (1, 0, 2)},
    ),
}


def as_ours(axes, stride=1, padding=0, dilation=1, groups=1, **others):
    """PyTorch's options as handgrad writes them."""
    if isinstance(padding, str):
        padding = padding.upper()
    else:
        padding = tuple((p, p) for p in (padding if isinstance(padding, tuple) else (padding,) * axes))
    return {"strides": stride, "padding": padding, "dilation": dilation, "groups": groups, **others}


def compare(rule, functions, table, kernel_shape, axes):
    """Every row of so many axes of space, the plainest without a bias as well."""
    calls, truths, names = [], [], []
    for name, (space, n_in, n_out, size, options) in table.items():
        if len(space) != axes:
            continue
        ours = as_ours(axes, **options)
        X, b = normal(2, *space, n_in), normal(n_out)
        K = normal(*size, *kernel_shape(n_in, n_out, ours["groups"]))
        for bias in ((b,), ()) if name == f"{axes}d" else ((b,),):
            function = lambda X, K, b=None, options=options: functions[axes - 1](X, K, b, **options)  # noqa: E731
            dY, (Y, dX, dK, *db) = in_torch(function, to_torch(X), kernel_to_torch(K), *bias)
            calls.append((rule.with_options(**ours), from_torch(dY), (X, K, *bias)))
            truths.append((from_torch(Y), from_torch(dX), kernel_from_torch(dK), *db))
            names.append(f"{name}, {'a' if bias else 'no'} bias")
    for found, truth, name in zip(together(calls), truths, names, strict=True):
        assert_close(found, truth, name)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution(axes):
    functions = F.conv1d, F.conv2d, F.conv3d
    compare(rules.convolution, functions, CONVOLUTIONS, lambda n_in, n_out, groups: (n_in // groups, n_out), axes)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolution(axes):
    functions = F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d
    compare(
        rules.transposed_convolution, functions, TRANSPOSED, lambda n_in, n_out, groups: (n_out // groups, n_in), axes
    )
