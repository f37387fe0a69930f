"""PyTorch's linear and cross_entropy: values and all gradients, in float64."""

import functools

import numpy as np
import pytest
from rules.losses.in_torch import EXTRAS, RNG, SHAPE, F, N, Z, assert_torchs, with_extras

CLASSES = RNG.integers(0, 7, SHAPE[:2])
IGNORED = np.where([[True, False, False]], -100, CLASSES)
W, B = RNG.standard_normal((N, 7)), RNG.standard_normal(7)


@pytest.mark.parametrize("bias", [True, False])
def test_options(bias):
    def loss(x, weight, b, y, **extra):
        return with_extras(F.linear(x, weight.T, b), y, **extra)

    b = B if bias else None
    each = [(extra, IGNORED if "ignore_index" in extra else CLASSES) for extra in EXTRAS]
    rows = [(functools.partial(loss, **extra), Z, W, b, y, {"chunk": 5, **extra}) for extra, y in each]
    assert_torchs(*(("linear_cross_entropy", *row) for row in rows))
