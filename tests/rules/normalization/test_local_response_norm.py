"""Local response norm: numbers whose squares overflow, and what is refused."""

import functools

import jax
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules

X = np.array([[1e30, -2e30, 0.0, 3.0, 1e-30, 0.5]])


def test_squares_that_overflow():
    """In float32 the values and slopes of float64, each by itself: a large neighbor doesn't hide a small one."""
    rule = rules.local_response_norm.with_options(size=3, alpha=1.0)

    @jax.jit
    def run(x, dy, wide, dy_wide):
        return passes(rule, dy, x), passes(rule, dy_wide, wide)

    dY = np.ones_like(X)
    found, expected = run(X.astype(np.float32), dY.astype(np.float32), X, dY)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-37)


def test_bad_input():
    refuse = functools.partial(refuses, rules.local_response_norm)
    refuse("X must have shape (batch, ..., features), got float64 (6,)", X[0], size=3)
    refuse("size must be a positive integer, got 0", X, size=0)
    for name in ("alpha", "beta", "k"):
        refuse(f"{name} must be a positive number, got 0", X, size=3, **{name: 0})
