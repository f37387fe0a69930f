"""Adaptive pools: the pools that they contain, NaN, and what is refused."""

import functools

import jax
import numpy as np
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)


def test_where_cells_are_windows():
    """Cells that divide space are windows of a pool, and one cell is the global pool."""
    X, dY, dy = RNG.standard_normal((2, 4, 6, 2)), RNG.standard_normal((2, 2, 2, 2)), RNG.standard_normal((2, 1, 1, 2))

    @jax.jit
    def run(X, dY, dy):
        adaptive = [rules.adaptive_average_pool, rules.adaptive_max_pool]
        pools = [rules.average_pool, rules.max_pool]
        found = [passes(rule.with_options(size=2), dY, X) for rule in adaptive]
        found += [passes(rule.with_options(size=1), dy, X) for rule in adaptive]
        expected = [passes(rule.with_options(window=(2, 3)), dY, X) for rule in pools]
        expected += [passes(rule.with_options(window=(4, 6)), dy, X) for rule in pools]
        return found, expected

    assert_same(*run(X, dY, dy))


def test_a_cell_with_more_elements_than_float16_has_numbers():
    Y = jax.jit(lambda X: rules.adaptive_average_pool(X, size=1))(np.ones((1, 70_000, 1), np.float16))
    assert Y.ravel() == 1


def test_nan():
    """In the cells that have one, and no other; the share goes to the first."""
    x = np.array([1.0, 2, np.nan, np.nan, 5, 6])[None, :, None]

    @jax.jit
    def run(x):
        return passes(rules.adaptive_max_pool.with_options(size=3), np.ones((1, 3, 1)), x)

    Y, (dX,) = run(x)
    np.testing.assert_array_equal(np.ravel(Y), [2, np.nan, 6])
    np.testing.assert_array_equal(np.ravel(dX), [0, 1, 1, 0, 0, 1])


def test_what_is_kept():
    X = jax.ShapeDtypeStruct((2, 9, 9, 3), np.float32)
    kept = jax.eval_shape(functools.partial(rules.adaptive_max_pool_forward, size=2), X)[1]
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) == 2 * 2 * 2 * 3 * 4
    kept = jax.eval_shape(functools.partial(rules.adaptive_average_pool_forward, size=2), X)[1]
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) == 0


def test_bad_input():
    X = np.ones((2, 4, 3))
    for rule in (rules.adaptive_average_pool, rules.adaptive_max_pool):
        space = "X must have shape (batch, *space, n), space not empty, got"
        refuses(rule, f"{space} float64 (2, 4)", X[..., 0], size=2)
        refuses(rule, f"{space} float64 (2, 0, 3)", X[:, :0], size=2)
        refuses(rule, "size must be a positive integer, or one for each of 1 axes of space, got None", X, size=None)
