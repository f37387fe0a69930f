"""PyTorch's pools, windows and global ones, and flatten: values and gradients in float64, option by option.

PyTorch has features behind the batch: axes move, numbers don't.
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


POOLS = {
    "1d": ((7,), {"kernel_size": 2}),
    "1d-strides": ((8,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "2d": ((5, 6), {"kernel_size": 2}),
    "2d-overlap": ((6, 5), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    "2d-beyond": ((8, 7), {"kernel_size": 2, "stride": 3}),
    "3d": ((3, 4, 4), {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": (1, 0, 1)}),
}
DILATED = {
    "1d-dilation": ((9,), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 3}),
    "2d-dilation": ((7, 8), {"kernel_size": (2, 3), "stride": 1, "padding": 1, "dilation": (3, 2)}),
    "3d-dilation": ((5, 4, 5), {"kernel_size": 2, "stride": 2, "dilation": (3, 2, 1)}),
}


def as_ours(axes, kernel_size, stride=None, padding=0, dilation=1):
    pads = padding if isinstance(padding, tuple) else (padding,) * axes
    return {"window": kernel_size, "strides": stride, "padding": tuple((p, p) for p in pads), "dilation": dilation}


def compare(rows):
    """(name, rule, torch's function, X) each, all in one program."""
    calls, truths = [], []
    for _, rule, function, X in rows:
        dY, (Y, dX) = in_torch(function, to_torch(X))
        calls.append((rule, from_torch(dY), (X,)))
        truths.append((from_torch(Y), from_torch(dX)))
    for found, truth, (name, *_) in zip(together(calls), truths, rows, strict=True):
        assert_close(found, truth, name)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pool(axes):
    """Ties too: PyTorch sends them to the first element, as JAX."""
    pool, rows = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1], []
    for name, (space, options) in (POOLS | DILATED).items():
        if len(space) == axes:
            X, rule = normal(2, *space, 3), rules.max_pool.with_options(**as_ours(axes, **options))
            function = lambda X, options=options: pool(X, **options)  # noqa: E731
            rows.append((name, rule, function, X))
            rows.append((f"{name}, ties", rule.with_options(residuals="recompute"), function, np.round(X)))
            rows.append((f"{name}, ties, saved", rule, function, np.round(X)))
    compare(rows)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_average_pool(axes):
    pool, rows = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1], []
    for name, (space, options) in POOLS.items():
        for padded in (True, False) if len(space) == axes else ():
            rule = rules.average_pool.with_options(**as_ours(axes, **options), count_include_pad=padded)
            function = lambda X, o=options, padded=padded: pool(X, count_include_pad=padded, **o)  # noqa: E731
            rows.append((f"{name}, {padded}", rule, function, normal(2, *space, 3)))
    compare(rows)


def test_global_pools_and_flatten():
    """A global maximum that is tied is shared, in torch as here."""
    calls, truths = [], []
    for space in ((4,), (3, 4), (2, 3, 2)):
        axes, X = tuple(range(2, 2 + len(space))), normal(2, *space, 3)
        for rule, given, function in (
            (rules.global_average_pool, X, lambda X, axes=axes: X.mean(axes)),
            (rules.global_max_pool, X, lambda X, axes=axes: X.amax(axes)),
            (rules.global_max_pool, np.round(X), lambda X, axes=axes: X.amax(axes)),
        ):
            dY, (Y, dX) = in_torch(function, to_torch(given))
            calls.append((rule, dY, (given,)))
            truths.append((Y, from_torch(dX)))
        dY, truth = in_torch(lambda X: X.flatten(1), X)
        calls.append((rules.flatten, dY, (X,)))
        truths.append(truth)
    assert_close(together(calls), truths)
