"""Pools: where ties, −∞ and NaN go, what is kept, equal forms, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import InputError, rules

RNG = np.random.default_rng(0)


def along(values):
    """One example, one feature."""
    return jnp.asarray(values, float)[None, :, None]


def pulled_back(X, dY=None, **options):
    Y, residuals = rules.max_pool_forward(X, **options)
    options.pop("residuals", None)
    return rules.max_pool_backward(residuals, jnp.ones_like(Y) if dY is None else dY, **options)[0]


@pytest.mark.parametrize("residuals", ["save", "recompute"])
def test_the_first_of_equal_maxima_has_it_all(residuals):
    options = {"window": 3, "strides": 1, "residuals": residuals}
    assert pulled_back(along([1, 1, 0, 1, 1]), **options).ravel().tolist() == [1, 1, 0, 1, 0]
    square = jnp.ones((1, 2, 2, 1))
    assert pulled_back(square, window=2, residuals=residuals).ravel().tolist() == [1, 0, 0, 0]


def test_everything_that_jax_does_with_ties_infinities_and_nan():
    """200 images of few different numbers, in overlapping windows with padding: bit by bit."""
    values, chances = [0, 1, 2, np.nan, -np.inf, np.inf], [0.3, 0.25, 0.2, 0.1, 0.1, 0.05]
    X = jnp.asarray(RNG.choice(values, (200, 5, 6, 1), p=chances))
    padding = ((1, 1), (1, 0))

    @jax.jit
    def reference(X, dY):
        everywhere = ((0, 0), *padding, (0, 0))
        pool = lambda X: jax.lax.reduce_window(X, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), everywhere)  # noqa: E731
        Y, pullback = jax.vjp(pool, X)
        return Y, pullback(dY)[0]

    options = {"window": 3, "strides": 2, "padding": padding}
    Y, _ = rules.max_pool_forward(X, **options)
    dY = jnp.asarray(RNG.integers(1, 9, Y.shape), float)  # sums of integers don't depend on their order
    expected, expected_dX = reference(X, dY)
    np.testing.assert_array_equal(Y, expected)
    for residuals in ("save", "recompute"):
        np.testing.assert_array_equal(pulled_back(X, dY, **options, residuals=residuals), expected_dX)


@pytest.mark.slow
def test_what_is_kept():
    """A byte for each output, or X itself, or nothing at all."""
    X = jnp.ones((2, 40, 4))
    position = rules.max_pool_forward(X, window=2)[1].position
    assert (position.dtype, position.shape) == (np.uint8, (2, 20, 4))
    assert rules.max_pool_forward(jnp.ones((1, 257, 1)), window=257)[1].position.dtype == np.uint16
    assert rules.max_pool_forward(jnp.ones((1, 257, 1)), window=256)[1].position.dtype == np.uint8
    assert rules.max_pool_forward(X, window=2, residuals="recompute")[1].X is X
    for residuals in (
        rules.average_pool_forward(X, window=2)[1],
        rules.global_average_pool_forward(X)[1],
        rules.flatten_forward(X)[1],
    ):
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(residuals)) == 0


@pytest.mark.slow
def test_a_maximum_in_the_last_of_many_taps():
    X = jnp.arange(300.0)[None, :, None]
    assert jnp.flatnonzero(pulled_back(X, window=300)).tolist() == [299]


def test_a_mean_is_a_depthwise_convolution():
    X = jnp.asarray(RNG.standard_normal((2, 6, 7, 3)))
    options = {"strides": (2, 1), "padding": ((1, 0), (1, 2)), "dilation": (1, 2)}
    Y, residuals = rules.average_pool_forward(X, window=(2, 3), **options)
    expected, of_convolution = rules.convolution_forward(X, jnp.full((2, 3, 1, 3), 1 / 6), groups=3, **options)
    np.testing.assert_allclose(Y, expected, atol=1e-14)
    dX = rules.average_pool_backward(residuals, Y, window=(2, 3), **options)[0]
    expected_dX = rules.convolution_backward(of_convolution, Y, groups=3, **options)[0]
    np.testing.assert_allclose(dX, expected_dX, atol=1e-14)


def test_global_pools_are_pools_of_one_window():
    X = jnp.asarray(RNG.standard_normal((2, 3, 4, 5)))
    for op in ("average_pool", "max_pool"):
        over_all, residuals = getattr(rules, f"global_{op}_forward")(X)
        Y, of_window = getattr(rules, op).forward(X, window=(3, 4))
        np.testing.assert_allclose(over_all, Y[:, 0, 0], rtol=1e-14)
        dX = getattr(rules, f"global_{op}_backward")(residuals, over_all)[0]
        np.testing.assert_allclose(dX, getattr(rules, op).backward(of_window, Y, window=(3, 4))[0], rtol=1e-14)


def test_global_maxima_share_and_nan_spreads():
    """As jax.grad of jnp.max: another convention than max_pool's."""
    for values, expected in (([1, 1, 0, 1], [1 / 3, 1 / 3, 0, 1 / 3]), ([np.nan, 1, 2], [np.nan] * 3)):
        Y, residuals = rules.global_max_pool_forward(along(values))
        (dX,) = rules.global_max_pool_backward(residuals, jnp.ones_like(Y))
        np.testing.assert_array_equal(dX.ravel(), jnp.asarray(expected))
        np.testing.assert_array_equal(dX, jax.grad(lambda X: jnp.max(X, 1).sum())(along(values)))


def test_means_of_bfloat16_run_in_float32():
    """Of 1,000 ones; counted in bfloat16, they would be 256."""
    ones = jnp.ones((1, 1000, 1), jnp.bfloat16)
    assert rules.global_average_pool_forward(ones)[0].item() == 1
    assert rules.average_pool_forward(ones, window=1000)[0].item() == 1


@pytest.mark.parametrize("op", ["max_pool", "average_pool"])
@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.ones((2, 4)), {"window": 2}, "X must have shape (batch, *space, n), got float64 (2, 4)"),
        (np.ones((2, 4, 3)), {"window": 5}, "the window must fit in X's space with its padding, (4,), got (5,)"),
        (
            np.ones((2, 4, 3)),
            {"window": 0},
            "window must be a positive integer, or one for each of 1 axes of space, got 0",
        ),
        (
            np.ones((2, 4, 3)),
            {"window": (2, 2)},
            "window must be a positive integer, or one for each of 1 axes of space",
        ),
        (np.ones((2, 4, 3)), {"window": 2, "strides": 0}, "strides must be a positive integer"),
        (
            np.ones((2, 4, 3)),
            {"window": 2, "padding": ((2, 0),)},
            "padding must leave each window an element of X, got ((2, 0),) for (4,)",
        ),
        (np.ones((2, 1, 3)), {"window": 2, "dilation": 2, "padding": ((1, 1),)}, "padding must leave each window an"),
        (np.ones((2, 4, 3)), {"window": 2, "padding": "FULL"}, "padding must be 'SAME', 'VALID' or a pair"),
    ],
)
def test_bad_input(op, X, options, message):
    with pytest.raises(InputError, match="^" + re.escape(f"{op}_forward: {message}")):
        getattr(rules, op).forward(X, **options)


def test_bad_input_of_others():
    with pytest.raises(InputError, match=r"^max_pool_forward: residuals must be 'save' or 'recompute', got 'mask'"):
        rules.max_pool_forward(np.ones((1, 2, 1)), window=2, residuals="mask")
    for op in ("global_max_pool", "global_average_pool"):
        for shape in ((2, 3), (2, 0, 3)):
            with pytest.raises(InputError, match=rf"^{op}_forward: X must have shape .* not empty, got float64 \(2, "):
                getattr(rules, op).forward(np.ones(shape))
