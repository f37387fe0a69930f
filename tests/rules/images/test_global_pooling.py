"""The global pools: pools of one window, but for ties."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules


def test_they_are_pools_of_one_window():
    X, dY = (np.random.default_rng(0).standard_normal(shape) for shape in ((2, 3, 4, 5), (2, 5)))

    @jax.jit
    def both(X, dY):
        found, expected = [], []
        for op in ("average_pool", "max_pool"):
            found.append(passes(getattr(rules, f"global_{op}"), dY, X))
            window = getattr(rules, op).with_options(window=(3, 4))
            Y, dX = passes(window, dY.reshape(2, 1, 1, 5), X)
            expected.append((Y[:, 0, 0], dX))
        return found, expected

    assert_same(*both(X, dY))


def test_global_maxima_share_and_nan_spreads():
    """As jax.grad of jnp.max: another convention than max_pool's. Under jit, XLA may make 0 of 0 / 0, in both."""
    X = jnp.asarray(np.array([[1, 1, 0, 1], [np.nan, 1, 2, 2]])[:, :, None])

    def both(X):
        (dX,) = passes(rules.global_max_pool, jnp.ones((2, 1)), X)[1]
        return dX, jax.grad(lambda X: jnp.max(X, 1).sum())(X)

    np.testing.assert_array_equal(*jax.jit(both)(X))
    dX, expected = both(X)
    np.testing.assert_array_equal(dX, expected)
    np.testing.assert_array_equal(np.asarray(dX)[..., 0], [[1 / 3, 1 / 3, 0, 1 / 3], [np.nan] * 4])


def test_a_mean_keeps_nothing():
    residuals = jax.eval_shape(rules.global_average_pool_forward, np.ones((2, 40, 4)))[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(residuals)) == 0


def test_bad_input():
    for rule in (rules.global_max_pool, rules.global_average_pool):
        for shape in ((2, 3), (2, 0, 3)):
            refuses(rule, f"X must have shape …not empty, got float64 {shape}", np.ones(shape))
