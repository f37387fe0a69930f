"""It learns a text by heart, and its gradient is jax.grad's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn

import handgrad as hg
from handgrad.layers import Sequences
from handgrad.models import LstmLanguageModelConfig, lstm_language_model
from handgrad.training import correct

# William Blake, "The Tyger" (1794).
TEXT = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?
"""
LETTERS = sorted(set(TEXT))
IDS = np.array([LETTERS.index(letter) for letter in TEXT])
CONFIG = LstmLanguageModelConfig(len(LETTERS), width=5, layers=2)
KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile


def windows(length):
    """Pieces of the text, and the same one letter later."""
    starts = range(0, len(IDS) - length, length)
    return (np.stack([IDS[start + late : start + late + length] for start in starts]) for late in (0, 1))


MODEL, LOSS = lstm_language_model(CONFIG), hg.softmax_cross_entropy()
PROJECTED = lstm_language_model(dataclasses.replace(CONFIG, head="projection"))


def test_the_gradient_is_jax_grads():
    """By either head."""
    x, target = windows(7)
    params = drawn(MODEL, x)
    assert jax.eval_shape(MODEL.forward, params, x)[0].shape == (*x.shape, len(LETTERS))
    found, expected = both_gradients(MODEL, LOSS, 0)(params, x, target)
    assert_same(found, expected)
    in_chunks = jax.jit(hg.value_and_grad(PROJECTED, hg.linear_cross_entropy(chunk=16)))
    assert_same(in_chunks(params, x, target), expected)


def test_logits_know_the_past_only():
    x, _ = windows(6)
    params = drawn(MODEL, x)
    forward = jax.jit(lambda ids: MODEL.forward(params, ids)[0])
    y, changed = (np.asarray(forward(ids)) for ids in (x, np.where(np.arange(6) < 3, x, 0)))
    np.testing.assert_array_equal(y[:, :3], changed[:, :3])
    assert (y[:, 3:] != changed[:, 3:]).any()


def test_lengths_go_through():
    """Logits within the length don't depend on what pads the rest."""
    x, _ = (ids[:2] for ids in windows(6))

    @jax.jit
    def run(params):
        y = MODEL.forward(params, Sequences(x, np.array([6, 3])))[0].X
        return (y[1:, :3], y[:1]), (MODEL.forward(params, x[1:, :3])[0], MODEL.forward(params, x[:1])[0])

    padded, alone = run(drawn(MODEL, x))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12), padded, alone)


@pytest.mark.parametrize("options", [{}, {"truncate": 4, "residuals": "recompute"}], ids=["whole", "truncated"])
def test_it_learns_a_text(options):
    """From log 28 = 3.3 per letter to less than 0.3."""
    model = lstm_language_model(LstmLanguageModelConfig(len(LETTERS), width=32, layers=2, **options))
    optimizer = optax.adam(2e-2)
    x, target = windows(12)

    def step(carry, _):
        params, state = carry
        value, grads = hg.value_and_grad(model, LOSS)(params, x, target)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), value / 12

    @jax.jit
    def learn(key):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), model.init(key, x))
        return jax.lax.scan(step, (params, optimizer.init(params)), length=200)[1]

    losses = np.asarray(learn(KEY))
    assert abs(losses[0] - np.log(len(LETTERS))) < 0.1
    assert losses[-1] < 0.3
    assert np.isfinite(losses).all()


def test_a_padded_batch_costs_its_own_steps():
    """By either head; whatever the labels past the end. Its norms and its curvature are there too, and the hits."""
    x, target = windows(7)
    lengths = np.arange(len(x)) % 7 + 1
    own = np.arange(7)[None] < lengths[:, None]
    padded, target = Sequences(x, lengths), np.where(own, target, 99)
    params, mine = drawn(MODEL, x), jnp.asarray(own)

    @jax.jit
    def expected(params):
        def mean(params):
            of_labels = jax.nn.one_hot(target, len(LETTERS)) * jax.nn.log_softmax(MODEL.forward(params, padded)[0].X)
            return -jnp.sum(jnp.where(mine[..., None], of_labels, 0)) / len(x)

        return jax.value_and_grad(mean)(params)

    @jax.jit
    def found(params):
        by_logits = hg.value_and_grad(MODEL, LOSS)(params, padded, Sequences(jnp.asarray(target)))
        hits = correct(MODEL.forward(params, padded)[0], jnp.asarray(target))
        factors = hg.value_and_factors(MODEL, LOSS)(params, padded, target)[1]
        in_chunks = hg.value_and_grad(PROJECTED, hg.linear_cross_entropy(chunk=16))(params, padded, target)
        return by_logits, in_chunks, hits, hg.per_example_grads(factors)

    by_logits, in_chunks, hits, apart = found(params)
    assert_same(by_logits, expected(params))
    assert_same(in_chunks, by_logits)
    assert_same(jax.tree.map(lambda g: g.mean(0), apart), by_logits[1])
    answers = jnp.argmax(MODEL.forward(params, padded)[0].X, axis=-1) == target
    np.testing.assert_allclose(hits, np.sum(np.asarray(answers) & own, axis=1) / lengths)
    for model, loss in ((MODEL, LOSS), (PROJECTED, hg.linear_cross_entropy())):
        factors = jax.eval_shape(hg.sampled_factors(model, loss), params, padded, target, KEY)
        assert "lstm" in jax.eval_shape(hg.kfac_factors, factors)
    assert_refused(
        {
            "softmax_cross_entropy: the target Y must be labels of shape .* got float64 .*": lambda: LOSS.forward(
                Sequences(jnp.zeros((2, 3, 4)), jnp.ones(2, int)), jnp.zeros((2, 3, 4))
            ),
            "ggn_diagonal: prediction must be one array without samples, got Sequences": lambda: hg.ggn_diagonal(
                MODEL, LOSS, params, padded, target
            ),
        }
    )


def test_refusals():
    rows = {
        "lstm_language_model: layers must be a positive integer, got 0": {"layers": 0},
        "lstm: n must be a positive integer, got 0": {"width": 0},
        "lstm_language_model: head must be 'logits' or 'projection', got None": {"head": None},
    }
    for sentence, options in rows.items():
        assert_refused({sentence: lambda o=options: lstm_language_model(LstmLanguageModelConfig(10, **o))})
