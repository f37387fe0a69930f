"""Piecewise activations: the kinks and infinities, and the whole range of a dtype."""

import jax
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules

INF = np.inf


def test_kinks_infinities_and_nan():
    """jax.nn's conventions at ±3, no NaN out of an infinity, and none lost."""
    x = np.array([[-INF, -3.0, -1.5, 0.0, 3.0, INF, np.nan]], np.float32)
    expected = {
        "squared_relu": ([0, 0, 0, 0, 9, INF, np.nan], [0, 0, 0, 0, 6, INF, 0]),
        "hard_sigmoid": ([0, 0, 0.25, 0.5, 1, 1, np.nan], [0, 1 / 12, 1 / 6, 1 / 6, 1 / 12, 0, 0]),
        "hard_swish": ([0, 0, -0.375, 0, 3, INF, np.nan], [0, -0.25, 0, 0.5, 1.25, 1, 0]),
        "prelu": ([INF, 6, 3, 0, 3, INF, np.nan], [-2, -2, -2, 1, 1, 1, -2]),
    }

    s, dY = np.full(1, -2, np.float32), np.ones(x.shape, np.float32)

    @jax.jit
    def run(x):
        return {name: passes(getattr(rules, name), dY, x, *([s] if name == "prelu" else [])) for name in expected}

    for name, (Y, (dX, *_)) in run(x).items():
        for found, known in zip((Y, dX), expected[name], strict=True):
            np.testing.assert_allclose(found[0], known, rtol=1e-6, err_msg=name)


def test_a_cotangent_near_the_end_of_float16():
    """2 dY overflows, and 2 dY x fits."""
    x, dY = np.array([[0.5, 0.25]], np.float16), np.array([[6e4, 6e4]], np.float16)
    _, (dX,) = jax.jit(lambda x, dY: passes(rules.squared_relu, dY, x))(x, dY)
    np.testing.assert_array_equal(dX, [[6e4, 3e4]])


def test_bad_input():
    X = np.ones((2, 3))
    refuses(rules.prelu, "s must have shape (3,) or (1,), got float64 (2,)", X, np.ones(2))
    refuses(rules.prelu, "s must have a floating-point dtype, got int64 (3,)", X, np.ones(3, int))
    refuses(rules.hard_swish, "residuals must be 'recompute' or 'save', got 'mask'", X, residuals="mask")
