"""Dropout: the mask, its two policies, its conventions, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((2, 4, 3, 5)))
KEY = jax.random.key(3)


def both(policy, rate=0.4, key=KEY, X=X, DY=DY):
    Y, residuals = rules.dropout_forward(X, key, rate=rate, residuals=policy)
    return Y, residuals, rules.dropout_backward(residuals, DY, rate=rate)[0]


@pytest.mark.parametrize("policy", ["save", "recompute"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_one_mask_in_both_passes(policy, dtype):
    """Whatever the dtype; kept elements are divided by 1 − rate, rounded once."""
    Y, _, dX = both(policy, X=X.astype(dtype), DY=DY.astype(dtype))
    mask = jax.random.bernoulli(KEY, jnp.float32(1 - 0.4), X.shape)
    assert ((Y != 0) == mask).all()
    assert ((dX != 0) == mask).all()
    wide = np.float64 if dtype == "float64" else np.float32
    for found, given in ((Y, X), (dX, DY)):
        expected = jnp.where(mask, (given.astype(dtype).astype(wide) / wide(1 - 0.4)).astype(dtype), 0)
        assert found.dtype == dtype
        assert (found == expected).all()


def test_policies_agree_bit_for_bit():
    (Y, saved, dX), (other, recomputed, other_dX) = both("save"), both("recompute")
    assert (other == Y).all()
    assert (dX == other_dX).all()
    assert (saved.mask.dtype, saved.mask.shape, saved.key) == (jnp.bool_, X.shape, None)
    assert recomputed.mask is None
    assert recomputed.key is KEY
    assert saved.outline.nbytes == 0


@pytest.mark.parametrize(("key", "rate"), [(None, 0.4), (KEY, 0.0), (KEY, 0), (None, 0.0)])
@pytest.mark.parametrize("policy", ["save", "recompute"])
def test_nothing_dropped(key, rate, policy):
    Y, residuals, dX = both(policy, rate, key)
    assert Y is X
    assert dX is DY
    assert sum(a.nbytes for a in jax.tree.leaves(residuals)) == 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_mean_is_kept(rate, dtype):
    """Of 10⁶ ones, to within five standard deviations of the mean; and half an ulp of bfloat16, as one number."""
    ones = jnp.ones((1000, 1000), dtype)
    Y, _ = rules.dropout_forward(ones, KEY, rate=rate)
    deviation = np.sqrt(rate / (1 - rate)) / 1000
    assert abs(float(Y.astype(float).mean()) - 1) <= 5 * deviation + (2.0**-9 if dtype == "bfloat16" else 0)
    assert abs(float((Y == 0).mean()) - rate) <= 5 * np.sqrt(rate * (1 - rate)) / 1000


def test_what_is_dropped_is_0_be_it_infinite():
    odd = jnp.full((20, 10), jnp.nan).at[:10].set(jnp.inf)
    Y, residuals = rules.dropout_forward(odd, KEY, rate=0.5)
    dX, _ = rules.dropout_backward(residuals, odd, rate=0.5)
    dropped = ~residuals.mask
    assert dropped.any()
    assert (Y[dropped] == 0).all()
    assert (dX[dropped] == 0).all()
    assert not jnp.isfinite(Y[~dropped]).any()


def test_old_and_new_keys_are_one():
    """jax.random.PRNGKey's words as well as jax.random.key."""
    new, old = (rules.dropout_forward(X, make(5), rate=0.4)[0] for make in (jax.random.key, jax.random.PRNGKey))
    assert (new == old).all()


def test_the_mask_does_not_depend_on_64_bits():
    """Else one key would mean one network in float32 and another one where float64 is switched on."""
    ones = np.ones((50, 20), np.float32)
    wide = rules.dropout_forward(ones, KEY, rate=0.4)[0]
    with jax.enable_x64(False):
        assert (np.asarray(wide) == np.asarray(rules.dropout_forward(ones, KEY, rate=0.4)[0])).all()


def test_other_keys_drop_others():
    one, two = (both("save", key=jax.random.key(seed))[0] for seed in (0, 1))
    assert ((one == 0) != (two == 0)).any()


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, float("nan"), float("inf"), True, None, "0.5"])
def test_rates_outside(rate):
    sentence = rf"rate must be a number in \[0, 1\), got {rate!r}$"
    with pytest.raises(hg.InputError, match="^dropout_forward: " + sentence):
        rules.dropout_forward(X, KEY, rate=rate)
    residuals = rules.dropout_forward(X, KEY, rate=0.5)[1]
    with pytest.raises(hg.InputError, match="^dropout_backward: " + sentence):
        rules.dropout_backward(residuals, DY, rate=rate)


@pytest.mark.parametrize(
    ("key", "got"),
    [
        (3, "int"),
        (jnp.ones(2), r"float64 \(2,\)"),
        (jax.random.split(KEY, 3), r"key<fry> \(3,\)"),
        (jnp.zeros((3, 2), jnp.uint32), r"uint32 \(3, 2\)"),
    ],
)
def test_no_random_key(key, got):
    for call in (rules.dropout_forward, jax.jit(rules.dropout_forward, static_argnames="rate")):
        if call is rules.dropout_forward or hasattr(key, "shape"):
            with pytest.raises(
                hg.InputError, match=rf"^dropout_forward: key must be one random key or None, got {got}"
            ):
                call(X, key, rate=0.5)


def test_an_unknown_policy():
    with pytest.raises(hg.InputError, match=r"^dropout_forward: residuals must be 'save' or 'recompute', got 'mask'$"):
        rules.dropout_forward(X, KEY, rate=0.5, residuals="mask")


@pytest.mark.parametrize("policy", ["save", "recompute"])
def test_a_cotangent_of_another_shape(policy):
    """Drawn again, the mask would fit any shape; the forward's is the one that counts."""
    residuals = rules.dropout_forward(X, KEY, rate=0.5, residuals=policy)[1]
    with pytest.raises(
        hg.InputError, match=r"^dropout_backward: dY must be the cotangent of Y, float64 \(4, 3, 5\), got"
    ):
        rules.dropout_backward(residuals, jnp.ones((4, 3, 1)), rate=0.5)
