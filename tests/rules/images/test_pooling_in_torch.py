"""PyTorch's pools, windows and global ones, and flatten: values and gradients in float64, option by option.

PyTorch has features behind the batch: axes move, numbers don't.
"""

import numpy as np
import pytest
from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

POOLS = {
    "1d": ((7,), {"kernel_size": 2}),
    "1d-strides": ((8,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "2d": ((5, 6), {"kernel_size": 2}),
    "2d-overlap": ((6, 5), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    "2d-beyond": ((8, 7), {"kernel_size": 2, "stride": 3}),
    "3d": ((3, 4, 4), {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": (1, 0, 1)}),
}
CEIL = {
    "1d-ceil": ((5,), {"kernel_size": 2, "ceil_mode": True}),
    "1d-ceil, wider than X": ((1,), {"kernel_size": 2, "ceil_mode": True}),
    "2d-ceil": ((6, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "2d-ceil, one left out": ((4, 5), {"kernel_size": (2, 1), "stride": 3, "padding": (1, 0), "ceil_mode": True}),
}
DILATED = {
    "1d-dilation": ((9,), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 3}),
    "2d-dilation": ((7, 8), {"kernel_size": (2, 3), "stride": 1, "padding": 1, "dilation": (3, 2)}),
    "3d-dilation": ((5, 4, 5), {"kernel_size": 2, "stride": 2, "dilation": (3, 2, 1)}),
}


def as_ours(axes, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    pads = tuple((p, p) for p in (padding if isinstance(padding, tuple) else (padding,) * axes))
    ours = {"window": kernel_size, "strides": stride, "padding": pads, "dilation": dilation}
    return {**ours, "ceil_mode": ceil_mode}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pool(axes):
    """Ties too: PyTorch sends them to the first element, as JAX."""
    pool, rows = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1], {}
    for name, (space, options) in (POOLS | CEIL | DILATED).items():
        if len(space) == axes:
            X, rule = normal(2, *space, 3), rules.max_pool.with_options(**as_ours(axes, **options))
            function = channels_first(lambda x, options=options: pool(x, **options))
            rows[name] = rule, function, (X,)
            rows[f"{name}, ties"] = rule.with_options(residuals="recompute"), function, (np.round(X),)
            rows[f"{name}, ties, saved"] = rule, function, (np.round(X),)
    assert_rules_agree(rows)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_average_pool(axes):
    pool, rows = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1], {}
    for name, (space, options) in (POOLS | CEIL).items():
        for padded in (True, False) if len(space) == axes else ():
            rule = rules.average_pool.with_options(**as_ours(axes, **options), count_include_pad=padded)
            function = channels_first(lambda x, o=options, padded=padded: pool(x, count_include_pad=padded, **o))
            rows[f"{name}, {padded}"] = rule, function, (normal(2, *space, 3),)
    assert_rules_agree(rows)


def test_global_pools_and_flatten():
    """A global maximum that is tied is shared, in torch as here."""
    rows = []
    for space in ((4,), (3, 4), (2, 3, 2)):
        axes, X = tuple(range(1, 1 + len(space))), normal(2, *space, 3)
        rows.append((rules.global_average_pool, lambda X, axes=axes: X.mean(axes), (X,)))
        rows += [(rules.global_max_pool, lambda X, axes=axes: X.amax(axes), (of,)) for of in (X, np.round(X))]
        rows.append((rules.flatten, lambda X: X.flatten(1), (X,)))
    assert_rules_agree(rows)
