"""Cumulative operations: zeros, ties, infinities, memory, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules
from handgrad.rules.sequences import cumulative
from handgrad.rules.sequences._cumulative import by_scan, in_turn

EVERY = [rules.cumulative_sum, rules.cumulative_product, rules.cumulative_max, rules.cumulative_logsumexp]


@functools.cache
def edges():
    """One program: (rule, options, X, dY) by name."""
    ones = np.ones((1, 4))
    rows = {
        "zeros": (rules.cumulative_product, {}, np.array([[2.0, 0, 3, 0]]), np.array([[1.0, 10, 100, 1000]])),
        "three": (rules.cumulative_max, {}, np.array([[1.0, 1, 1, 0]]), ones),
        "from -inf": (rules.cumulative_max, {}, np.array([[-np.inf, -np.inf, 1, 0]]), ones),
        "all of -inf": (rules.cumulative_logsumexp, {"reverse": True}, np.array([[1.0, 2, -np.inf, -np.inf]]), ones),
        "far apart": (rules.cumulative_logsumexp, {}, np.array([[1e4, -1e4, 1e4, 0]]), ones),
        "empty": (rules.cumulative_product, {}, np.ones((2, 0)), np.ones((2, 0))),
    }

    @jax.jit
    def run(given):
        return {name: passes(rows[name][0].with_options(**rows[name][1]), dY, X) for name, (X, dY) in given.items()}

    return {name: (Y, *d) for name, (Y, d) in run({name: row[2:] for name, row in rows.items()}).items()}


def test_a_scan_is_one_element_after_the_other():
    """What a GPU runs, beside what a CPU does; with a zero, a product that overflows behind it, equal elements, −∞."""
    rng = np.random.default_rng(0)
    X, dY = rng.standard_normal((2, 3, 9, 2))
    X[0, 3:5], X[1, 6], X[2, 1] = 0, X[1, 5], -np.inf
    behind = np.arange(9)[:, None] > 5
    ways = [
        (slopes, nothing, reverse, x, scan)
        for slopes, nothing, x, scan in (
            (cumulative._of_product, 1, X, np.multiply.accumulate),
            (cumulative._of_max, np.nan, X, np.maximum.accumulate),
            (cumulative._of_logsumexp, -np.inf, X, np.logaddexp.accumulate),
        )
        for reverse in (False, True)
    ]

    @jax.jit
    def both(given):
        pairs = zip(ways, given, strict=True)
        return [[way(s, nothing, back, *xy, dY) for way in (by_scan, in_turn)] for (s, nothing, back, *_), xy in pairs]

    given = []
    with np.errstate(over="ignore", invalid="ignore"):
        for slopes, _, reverse, x, scan in ways:
            if slopes is cumulative._of_product:
                x = np.where(behind[::-1] if reverse else behind, 1e200, x)
            flipped = x[:, ::-1] if reverse else x
            y = scan(flipped, 1)
            given.append((x, y[:, ::-1] if reverse else y))
    for one, two in both(given):
        assert not np.isnan(two).any()
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_a_product_with_zeros():
    """At the first zero the products behind it count until the next zero; at the second nothing before it is left."""
    Y, dX = edges()["zeros"]
    assert Y.tolist() == [[2, 0, 0, 0]]
    assert dX.tolist() == [[1, 2 * (10 + 3 * 100), 0, 0]]
    assert [a.shape for a in edges()["empty"]] == [(2, 0)] * 2


def test_equal_maxima():
    """The newest has half, the one before half of the rest; what was first is first, even if it is −∞."""
    assert edges()["three"][1].tolist() == [[1 + 1 / 2 + 2 / 4, 1 / 2 + 2 / 4, 2 / 2, 0]]
    assert edges()["from -inf"][1].tolist() == [[1 + 1 / 2, 1 / 2, 2, 0]]


def test_logsumexp_of_infinities_and_far_apart():
    Y, dX = (np.asarray(a[0]) for a in edges()["all of -inf"])
    np.testing.assert_allclose(Y, [2 + np.log1p(np.exp(-1)), 2, -np.inf, -np.inf], rtol=1e-15)
    s = 1 / (1 + np.e)
    np.testing.assert_allclose(dX, [s, 1 + (1 - s), 0, 0], rtol=1e-15)
    Y, dX = (np.asarray(a[0]) for a in edges()["far apart"])
    np.testing.assert_allclose(Y, [1e4, 1e4, 1e4 + np.log(2), 1e4 + np.log(2)], rtol=1e-15)
    np.testing.assert_allclose(dX, [2 + 1, 0, 1, 0], rtol=1e-11)


def test_half_precision_is_summed_in_float32():
    """4,097 ones are 4,097 and not 2,048, in both directions; a product's Y is kept before it is rounded."""
    X = jnp.ones((1, 4097), jnp.float16)
    Y, (dX,) = jax.jit(lambda X: passes(rules.cumulative_sum, X, X))(X)
    assert Y.dtype == dX.dtype == jnp.float16
    assert (int(Y[0, -2]), int(dX[0, 1])) == (4096, 4096)
    for rule in (rules.cumulative_product, rules.cumulative_logsumexp):
        assert jax.eval_shape(rule.forward, X)[1].Y.dtype == jnp.float32


def test_arguments_of_the_wrong_kind():
    X = np.ones((2, 3, 4))
    for rule in EVERY:
        refuses(rule, "axis must be one of X's behind the batch, got 0 for float64 (2, 3, 4)", X, axis=0)
        refuses(rule, "axis must be one of X's behind the batch, got -3 for …", X, axis=-3)
        refuses(rule, "axis must be one of X's behind the batch, got True for …", X, axis=True)
        refuses(rule, "reverse must be True or False, got 1", X, reverse=1)
        refuses(rule, "X must have shape (batch, ..., features), got float64 (2,)", X[:, 0, 0])
