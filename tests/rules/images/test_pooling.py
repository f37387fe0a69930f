"""Pools: where ties, −∞ and NaN go, what is kept, equal forms, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)


def test_the_first_of_equal_maxima_has_it_all():
    along = np.array([1.0, 1, 0, 1, 1])[None, :, None]

    @jax.jit
    def run(along, square):
        return [
            (
                passes(rules.max_pool.with_options(window=3, strides=1, **kept), np.ones((1, 3, 1)), along)[1][0],
                passes(rules.max_pool.with_options(window=2, **kept), np.ones((1, 1, 1, 1)), square)[1][0],
            )
            for kept in ({"residuals": "save"}, {"residuals": "recompute"})
        ]

    for along_dX, square_dX in run(along, np.ones((1, 2, 2, 1))):
        assert np.ravel(along_dX).tolist() == [1, 1, 0, 1, 0]
        assert np.ravel(square_dX).tolist() == [1, 0, 0, 0]


def test_everything_that_jax_does_with_ties_infinities_and_nan():
    """200 images of few different numbers, in overlapping windows with padding: bit by bit."""
    values, chances = [0, 1, 2, np.nan, -np.inf, np.inf], [0.3, 0.25, 0.2, 0.1, 0.1, 0.05]
    X = RNG.choice(values, (200, 5, 6, 1), p=chances)
    dY = RNG.integers(1, 9, (200, 3, 3, 1)).astype(float)  # sums of integers don't depend on their order
    padding = ((1, 1), (1, 0))

    @jax.jit
    def both(X, dY):
        everywhere = ((0, 0), *padding, (0, 0))
        pool = lambda X: jax.lax.reduce_window(X, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), everywhere)  # noqa: E731
        Y, pullback = jax.vjp(pool, X)
        rule = rules.max_pool.with_options(window=3, strides=2, padding=padding)
        again = rule.with_options(residuals="recompute")
        return (Y, pullback(dY)), passes(rule, dY, X), passes(again, dY, X)

    expected, *found = both(X, dY)
    for ours in found:
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_what_is_kept():
    """A byte for each output, or X itself, or nothing at all."""
    X = jnp.asarray(np.ones((2, 40, 4)))
    for shape, window, position in (
        ((2, 40, 4), 2, ("uint8", (2, 20, 4))),
        ((1, 257, 1), 257, ("uint16", (1, 1, 1))),
        ((1, 257, 1), 256, ("uint8", (1, 1, 1))),
    ):
        like = jax.ShapeDtypeStruct(shape, X.dtype)
        kept = jax.eval_shape(functools.partial(rules.max_pool_forward, window=window), like)[1]
        assert (kept.position.dtype, kept.position.shape) == position
        assert (kept.X, kept.outline.size) == (None, 0)
    kept = rules.max_pool_forward(X, window=2, residuals="recompute")[1]
    assert kept.X is X
    assert kept.outline.size == 0
    of_mean = jax.eval_shape(functools.partial(rules.average_pool_forward, window=2), X)[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(of_mean)) == 0


@pytest.mark.slow
def test_a_maximum_in_the_last_of_many_taps():
    X = jnp.arange(300.0)[None, :, None]
    (dX,) = passes(rules.max_pool.with_options(window=300), jnp.ones((1, 1, 1)), X)[1]
    assert jnp.flatnonzero(dX).tolist() == [299]


def test_a_mean_is_a_depthwise_convolution():
    X, dY = RNG.standard_normal((2, 6, 7, 3)), RNG.standard_normal((2, 3, 6, 3))
    options = {"strides": (2, 1), "padding": ((1, 0), (1, 2)), "dilation": (1, 2)}

    @jax.jit
    def both(X, dY):
        K = jnp.full((2, 3, 1, 3), 1 / 6)
        Y, (dX, *_) = passes(rules.convolution.with_options(groups=3, **options), dY, X, K)
        return passes(rules.average_pool.with_options(window=(2, 3), **options), dY, X), (Y, (dX,))

    assert_same(*both(X, dY))


def test_means_of_bfloat16_run_in_float32():
    """Of 1,000 ones; counted in bfloat16, they would be 256."""

    @jax.jit
    def both(ones):
        return rules.global_average_pool_forward(ones)[0], rules.average_pool_forward(ones, window=1000)[0]

    assert [mean.item() for mean in both(jnp.asarray(np.ones((1, 1000, 1)), jnp.bfloat16))] == [1, 1]


@pytest.mark.parametrize("rule", [rules.max_pool, rules.average_pool], ids=lambda rule: rule.__name__)
def test_bad_input(rule):
    X, refuse = np.ones((2, 4, 3)), functools.partial(refuses, rule)
    refuse("X must have shape (batch, *space, n), got float64 (2, 4)", X[..., 0], window=2)
    refuse("the window must fit in X's space with its padding, (4,), got (5,)", X, window=5)
    integer = "must be a positive integer, or one for each of 1 axes of space, got"
    for window in (0, (2, 2)):
        refuse(f"window {integer} {window}", X, window=window)
    refuse(f"strides {integer} 0", X, window=2, strides=0)
    left = "padding must leave each window an element of X, got"
    refuse(f"{left} ((2, 0),) for (4,)", X, window=2, padding=((2, 0),))
    refuse(f"{left} ((1, 1),) for (1,)", X[:, :1], window=2, dilation=2, padding=((1, 1),))
    refuse("padding must be 'SAME', 'VALID' or a pair…", X, window=2, padding="FULL")
    if rule is rules.max_pool:
        refuse("residuals must be 'save' or 'recompute', got 'mask'", X, window=2, residuals="mask")
