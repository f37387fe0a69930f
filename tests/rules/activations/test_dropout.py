"""Dropout: the mask, its two policies, its conventions, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((2, 4, 3, 5))
KEY = jax.random.key(3)
POLICIES = ("save", "recompute")


def both(policy, X, DY, key=KEY, rate=0.4):
    Y, residuals = rules.dropout_forward(X, key, rate=rate, residuals=policy)
    return Y, residuals, rules.dropout_backward(residuals, DY, rate=rate)[0]


def test_one_mask_in_both_passes():
    """Whatever the policy and the dtype; kept elements are divided by 1 − rate, in float32 at least."""
    dtypes = {"float64": np.float64, "float32": np.float32, "bfloat16": jnp.bfloat16}
    given = {name: (X.astype(dtype), DY.astype(dtype)) for name, dtype in dtypes.items()}

    @optimized_jit
    def run(given, key):
        found = {(name, policy): both(policy, *arrays, key) for name, arrays in given.items() for policy in POLICIES}
        return found, jax.random.bernoulli(key, jnp.float32(1 - 0.4), X.shape)

    found, mask = run(given, KEY)
    for (name, policy), (Y, residuals, dX) in found.items():
        assert (residuals.mask is None) == (policy == "recompute")
        assert (residuals.key is None) == (policy == "save")
        assert residuals.outline.nbytes == 0
        if policy == "save":
            assert (residuals.mask.dtype, residuals.mask.shape) == (jnp.bool_, X.shape)
        wide = np.float64 if name == "float64" else np.float32
        for one, numbers in zip((Y, dX), given[name], strict=True):
            expected = np.where(mask, (numbers.astype(wide) / wide(1 - 0.4)).astype(dtypes[name]), 0)
            assert one.dtype == name
            assert ((np.asarray(one) != 0) == mask).all()
            rtol = 0 if name == "bfloat16" else np.finfo(name).eps  # XLA may multiply by the reciprocal
            np.testing.assert_allclose(np.asarray(one, np.float64), expected.astype(np.float64), rtol=rtol, atol=0)
    for name in dtypes:
        (Y, _, dX), (other_Y, _, other_dX) = (found[name, policy] for policy in POLICIES)
        assert (np.asarray(Y) == other_Y).all()
        assert (np.asarray(dX) == other_dX).all()


@pytest.mark.parametrize(("key", "rate"), [(None, 0.4), (KEY, 0.0), (KEY, 0), (None, 0.0)])
@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_dropped(key, rate, policy):
    x, dy = jnp.asarray(X), jnp.asarray(DY)
    Y, residuals, dX = both(policy, x, dy, key, rate)
    assert Y is x
    assert dX is dy
    assert sum(a.nbytes for a in jax.tree.leaves(residuals)) == 0


def test_the_mean_is_kept():
    """Of 10⁶ ones, to within five standard deviations of the mean; and half an ulp of bfloat16, as one number."""
    rates = (0.1, 0.5, 0.9)

    @optimized_jit
    def run(key):
        dropped = {}
        for dtype in ("float32", "bfloat16"):
            for rate in rates:
                Y, _ = rules.dropout_forward(jnp.ones((1000, 1000), dtype), key, rate=rate)
                dropped[dtype, rate] = Y.astype(float).mean(), (Y == 0).mean()
        return dropped

    for (dtype, rate), (mean, zeros) in run(KEY).items():
        deviation = np.sqrt(rate / (1 - rate)) / 1000
        assert abs(float(mean) - 1) <= 5 * deviation + (2.0**-9 if dtype == "bfloat16" else 0)
        assert abs(float(zeros) - rate) <= 5 * np.sqrt(rate * (1 - rate)) / 1000


def test_keys_and_numbers_that_are_not_finite():
    """What is dropped is 0, even where it was infinite; jax.random.PRNGKey's words are keys as well; other keys drop
    others; and the mask does not depend on 64 bits, else one key would mean two networks."""
    odd = np.full((20, 10), np.nan)
    odd[:10] = np.inf
    ones = np.ones((50, 20), np.float32)

    @optimized_jit
    def run(odd, ones):
        Y, residuals = rules.dropout_forward(odd, KEY, rate=0.5)
        dX, _ = rules.dropout_backward(residuals, odd, rate=0.5)
        keys = jax.random.key(5), jax.random.PRNGKey(5), jax.random.key(0, impl="unsafe_rbg")
        return Y, dX, residuals.mask, [rules.dropout_forward(ones, key, rate=0.4)[0] for key in keys]

    Y, dX, mask, (new, old, other) = jax.tree.map(np.asarray, run(odd, ones))
    assert not mask.all()
    assert (Y[~mask] == 0).all()
    assert (dX[~mask] == 0).all()
    assert not np.isfinite(Y[mask]).any()
    assert (new == old).all()
    assert ((new == 0) != (other == 0)).any()
    with jax.enable_x64(False):
        assert (new == np.asarray(rules.dropout_forward(ones, jax.random.key(5), rate=0.4)[0])).all()


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, float("nan"), float("inf"), True, None, "0.5"])
def test_rates_outside(rate):
    sentence = f"rate must be a number in [0, 1), got {rate!r}"
    refuses(rules.dropout, sentence, X, KEY, rate=rate)
    residuals = jax.eval_shape(lambda: rules.dropout_forward(X, KEY, rate=0.5)[1])
    with pytest.raises(hg.InputError, match=f"^dropout_backward: {re.escape(sentence)}$"):
        rules.dropout_backward(residuals, DY, rate=rate)


def test_refusals():
    for key, got in (
        (3, "int"),
        (np.ones(2), "float64 (2,)"),
        (jax.eval_shape(lambda: jax.random.split(KEY, 3)), "key<fry> (3,)"),
        (np.zeros((3, 2), np.uint32), "uint32 (3, 2)"),
    ):
        refuses(rules.dropout, f"key must be one random key or None, got {got}", X, key, rate=0.5)
    refuses(rules.dropout, "residuals must be 'save' or 'recompute', got 'mask'", X, KEY, rate=0.5, residuals="mask")
    for policy in POLICIES:  # drawn again, the mask would fit any shape; the forward's is the one that counts
        residuals = jax.eval_shape(lambda policy=policy: both(policy, X, DY)[1])
        message = r"^dropout_backward: dY must be the cotangent of Y, float64 \(4, 3, 5\), got"
        with pytest.raises(hg.InputError, match=message):
            rules.dropout_backward(residuals, np.ones((4, 3, 1)), rate=0.5)
