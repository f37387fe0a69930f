"""Straight-through estimators: values, the surrogate's slope, and the checker, which is told what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_right, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

X = 2 * np.random.default_rng(0).standard_normal((3, 4))


def surrogate(X):
    return X + jax.lax.stop_gradient(jnp.round(X) - X)


def test_the_checker_trusts_the_surrogate():
    """With differences=False the estimator is right, and a wrong one isn't; differences see a flat value."""
    quick = {"contracts": False, "transforms": (), "control": False}
    check_right(hg.check_rule(rules.straight_through_round, X, reference=surrogate, differences=False, **quick))
    doubled = hg.Rule(rules.straight_through_round.forward, lambda kept, dY: (2 * dY,))
    assert hg.check_rule(doubled, X, reference=surrogate, differences=False, **quick).verdict == "FAIL"
    assert not hg.check_rule(rules.straight_through_round, X, reference=surrogate, **quick).ok


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_values_to_the_last_digit(dtype):
    """Of numbers of any size, infinite and NaN too; slopes where the window says."""
    x = np.array([0.5, 1.5, -0.7, 1e-30, 8388607.5, -3e38, np.inf, -np.inf, np.nan, -0.0]).astype(dtype)

    @optimized_jit
    def run(x):
        (one, pull), (two, pull_sign) = (
            jax.vjp(f, x) for f in (rules.straight_through_round, rules.straight_through_sign)
        )
        return one, two, pull(one)[0], pull_sign(jnp.ones_like(x))[0]

    rounded, signs, dX, d_sign = (np.asarray(a, np.float64) for a in run(x))
    wide = x.astype(np.float64)
    np.testing.assert_array_equal(rounded, np.round(wide))
    np.testing.assert_array_equal(signs, np.where(np.isnan(wide), np.nan, np.where(wide >= 0, 1, -1)))
    np.testing.assert_array_equal(dX, np.round(wide))
    np.testing.assert_array_equal(d_sign, np.abs(wide) <= 1)


def test_bad_input():
    refuses(rules.straight_through_sign, "window must be a positive number, got 0", X, window=0)
