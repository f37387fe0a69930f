"""RMS norm is layer norm where the rows have mean 0. What holds for every norm is in test_layer_norm.py."""

import numpy as np
from helpers import assert_same, optimized_jit, passes

from handgrad import rules

RNG = np.random.default_rng(0)
X, DY, GAMMA = RNG.standard_normal((3, 4, 6)) + 1, RNG.standard_normal((3, 4, 6)), RNG.standard_normal(6)


def test_rms_norm_of_centered_rows_is_layer_norm():
    @optimized_jit
    def both(X, gamma, dY):
        rms, layer = (rule.with_options(eps=0.1) for rule in (rules.rms_norm, rules.layer_norm))
        Y, (dX, dgamma) = passes(rms, dY, X - X.mean(-1, keepdims=True), gamma)
        expected, (expected_dX, expected_dgamma, _) = passes(layer, dY, X, gamma)
        return (Y, dX - dX.mean(-1, keepdims=True), dgamma), (expected, expected_dX, expected_dgamma)

    assert_same(*both(X, GAMMA, DY))
