"""PyTorch's convolutions, plain and transposed: values and every gradient in float64, option by option.

PyTorch has features behind the batch and kernels as (n_out, n_in / groups, *size): axes move, numbers don't.
"""

import pytest
from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

EVERYTHING = {"padding": (1, 0, 2), "stride": (2, 1, 3), "dilation": (1, 3, 2)}
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
    "3d-everything": ((5, 4, 5), 4, 4, (2, 2, 3), {"groups": 4, **EVERYTHING}),
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
    "3d-everything": ((2, 3, 2), 4, 2, (2, 2, 3), {"groups": 2, "output_padding": (1, 0, 2), **EVERYTHING}),
}


def as_ours(axes, stride=1, padding=0, dilation=1, groups=1, **others):
    """PyTorch's options as handgrad writes them."""
    if isinstance(padding, str):
        padding = padding.upper()
    else:
        padding = tuple((p, p) for p in (padding if isinstance(padding, tuple) else (padding,) * axes))
    return {"strides": stride, "padding": padding, "dilation": dilation, "groups": groups, **others}


def in_torch(function, options):
    """Of a kernel (*size, one, other), transposed or not: (other, one, *size) in torch."""

    def run(X, K, b=None):
        return channels_first(lambda x: function(x, K.movedim((-1, -2), (0, 1)).contiguous(), b, **options))(X)

    return run


def compare(rule, functions, table, kernel_shape, axes):
    """Every row of so many axes of space, the plainest without a bias as well."""
    rows = {}
    for name, (space, n_in, n_out, size, options) in table.items():
        if len(space) == axes:
            ours = as_ours(axes, **options)
            X, b = normal(2, *space, n_in), normal(n_out)
            K = normal(*size, *kernel_shape(n_in, n_out, ours["groups"]))
            row = rule.with_options(**ours), in_torch(functions[axes - 1], options)
            rows[name] = *row, (X, K, b)
            if name == f"{axes}d":
                rows[f"{name}, no bias"] = *row, (X, K)
    assert_rules_agree(rows)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution(axes):
    functions = F.conv1d, F.conv2d, F.conv3d
    compare(rules.convolution, functions, CONVOLUTIONS, lambda n_in, n_out, groups: (n_in // groups, n_out), axes)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolution(axes):
    functions = F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d
    shape = lambda n_in, n_out, groups: (n_out // groups, n_in)  # noqa: E731
    compare(rules.transposed_convolution, functions, TRANSPOSED, shape, axes)
