"""Gumbel-softmax: it draws what softmax says, one key is one draw in every dtype, what hard keeps, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import check_right, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

Z, DY = np.random.default_rng(0).standard_normal((2, 3, 4))
KEY = jax.random.key(0)


def test_draws_relaxed_and_hard():
    """20,000 draws of one row are its softmax within five deviations; hard ones are one-hot where relaxed ones are
    largest and pull back alike, in every dtype."""
    logits = np.log([0.1, 0.2, 0.7])

    @optimized_jit
    def run(Z):
        many = rules.gumbel_softmax(jnp.broadcast_to(logits, (20_000, 3)), KEY, hard=True)
        ways = {}
        for dtype in (jnp.float64, jnp.float32, jnp.bfloat16):
            for hard in (False, True):
                rule = rules.gumbel_softmax.with_options(temperature=0.5, hard=hard)
                Y, kept = rule.forward(Z.astype(dtype), KEY)
                ways[jnp.dtype(dtype).name, hard] = Y, rule.backward(kept, DY.astype(dtype))[0]
        return many, ways

    many, ways = run(Z)
    assert set(np.unique(many)) == {0, 1}
    np.testing.assert_allclose(many.mean(0), np.exp(logits), atol=5 * np.sqrt(0.25 / 20_000))
    for name in ("float64", "float32", "bfloat16"):
        (soft, dZ), (hard, dZ_hard) = ways[name, False], ways[name, True]
        assert soft.dtype == hard.dtype == dZ.dtype == name
        np.testing.assert_array_equal(hard, np.eye(4)[np.argmax(soft, -1)])
        np.testing.assert_array_equal(dZ, dZ_hard)
        np.testing.assert_allclose(soft.astype(float), ways["float64", False][0], atol=float(jnp.finfo(name).eps))


def test_nan_stays_in_its_row():
    """A row of NaN has no largest element, hard or not."""
    Y = jax.jit(lambda Z: rules.gumbel_softmax(Z, KEY, hard=True))(np.where(np.eye(3, 4) * [0, 1, 0, 0], np.nan, Z))
    np.testing.assert_array_equal(np.isnan(Y).all(1), [False, True, False])
    np.testing.assert_array_equal(np.isnan(Y).any(1), [False, True, False])


def test_the_checker_takes_the_estimator():
    def surrogate(Z, key):
        P = jax.nn.softmax((Z + jax.random.gumbel(key, Z.shape, jnp.float32)) / 0.5)
        return P + jax.lax.stop_gradient(jax.nn.one_hot(jnp.argmax(P, -1), 4) - P)

    rule = rules.gumbel_softmax.with_options(temperature=0.5, hard=True)
    quick = {"contracts": False, "transforms": (), "control": False}
    check_right(hg.check_rule(rule, Z, KEY, reference=surrogate, differences=False, **quick))


def test_bad_input():
    refuse = functools.partial(refuses, rules.gumbel_softmax)
    refuse("temperature must be a positive number, got 0", Z, KEY, temperature=0)
    refuse("key must be one random key or None, got float64 (3, 4)", Z, Z)
    refuse("the logits Z must have shape (batch, ..., features), got float64 (4,)", Z[0], KEY)
