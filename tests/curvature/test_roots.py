"""Factors of what is pulled back in place of the loss's slope."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.curvature import ggn_diagonal, kfac_factors, kflr_factors, sampled_factors

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N = 3, 2, 3
X = jnp.asarray(RNG.standard_normal((BATCH, TOKENS, N)))
LABELS = jnp.asarray(RNG.integers(0, N, (BATCH, TOKENS)))
MODEL = hg.chain(hg.linear(4), hg.tanh(), hg.linear(N))


def test_sampled_factors_are_those_of_a_target_drawn():
    loss = hg.softmax_cross_entropy()

    @jax.jit
    def both(params):
        logits, _ = MODEL.forward(params, X)
        drawn = jnp.argmin(loss.draw(loss.forward(logits, LABELS)[1], KEY), axis=-1)
        _, expected = hg.value_and_factors(MODEL, loss)(params, X, drawn)
        return sampled_factors(MODEL, loss)(params, X, LABELS, KEY), expected

    assert_same(*both(jax.tree.map(lambda p: jnp.ones(p.shape) / 2, jax.eval_shape(MODEL.init, KEY, X))))


def test_bad_input():
    params = jax.eval_shape(MODEL.init, KEY, X)
    without = hg.softmax_cross_entropy(z_loss=0.1)
    for function in (ggn_diagonal, kflr_factors):
        where = f"^{function.__name__}: "
        call = functools.partial(function, MODEL, params=params, x=X, target=LABELS)
        with pytest.raises(hg.InputError, match=where + "loss must have a root, as softmax_cross_entropy .* got none$"):
            call(loss=without)
        with pytest.raises(hg.InputError, match=where + "loss must have a draw"):
            call(loss=hg.absolute_error(), key=KEY, samples=2)
        with pytest.raises(hg.InputError, match=where + "samples must be a positive integer, got 0"):
            call(loss=hg.softmax_cross_entropy(), key=KEY, samples=0)
        with pytest.raises(hg.InputError, match=where + "key must come with samples, got key NoneType and samples 3"):
            call(loss=hg.softmax_cross_entropy(), samples=3)
        with pytest.raises(
            hg.InputError, match=where + r"key must come with samples, got key key<fry> \(\) and samples None"
        ):
            call(loss=hg.softmax_cross_entropy(), key=KEY)
        with pytest.raises(hg.InputError, match=where + "expected a Loss"):
            call(loss=hg.softmax_cross_entropy)
        with pytest.raises(hg.InputError, match=where + "expected a Layer"):
            function(hg.tanh, hg.squared_error(), params, X, LABELS)
    with pytest.raises(hg.InputError, match=r"^kflr_factors: mode must be 'expand' or 'reduce', got 'kfra'$"):
        kflr_factors(MODEL, hg.softmax_cross_entropy(), params, X, LABELS, mode="kfra")
    with pytest.raises(hg.InputError, match=r"^kfac_factors: mode must be 'expand' or 'reduce', got 'kfra'$"):
        kfac_factors((), mode="kfra")
    with pytest.raises(hg.InputError, match=r"^sampled_factors: loss must have a draw"):
        sampled_factors(MODEL, without)
    with pytest.raises(hg.InputError, match=r"^sampled_factors: expected a Layer"):
        sampled_factors(hg.tanh, without)
