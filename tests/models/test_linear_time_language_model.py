"""Its gradient is jax.grad's, with each mixer; its logits know the past alone."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn

import handgrad as hg
from handgrad.models import LinearTimeLanguageModelConfig, linear_time_language_model
from handgrad.models.linear_time_language_model import MIXERS

X, TARGET = np.random.default_rng(0).integers(0, 7, (2, 3, 6))
SIZES = {"width": 4, "blocks": 2, "heads": 2}


@pytest.mark.parametrize(
    "mixer", [pytest.param(m, marks=[pytest.mark.slow] * (m != "gated_delta_net")) for m in MIXERS]
)
def test_the_gradient_is_jax_grads(mixer):
    config = LinearTimeLanguageModelConfig(7, mixer=mixer, hidden=None if mixer.startswith("mamba") else 6, **SIZES)
    model = linear_time_language_model(config)
    params = drawn(model, X, 0.5)
    assert jax.eval_shape(model.forward, params, X)[0].shape == (*X.shape, 7)
    assert ("mlp" in params["blocks"]) == (not mixer.startswith("mamba"))
    assert_same(*both_gradients(model, hg.softmax_cross_entropy(), 0)(params, X, TARGET), 1e-11)


@pytest.mark.slow
def test_a_projection_changes_nothing():
    config = LinearTimeLanguageModelConfig(7, hidden=6, **SIZES)
    model, other = (linear_time_language_model(dataclasses.replace(config, head=h)) for h in ("logits", "projection"))
    params = drawn(model, X, 0.5)
    ways = (other, hg.linear_cross_entropy(chunk=16)), (model, hg.softmax_cross_entropy())
    assert_same(*jax.jit(lambda params: [hg.value_and_grad(*of)(params, X, TARGET) for of in ways])(params), 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
def test_logits_know_the_past_only(mixer):
    model = linear_time_language_model(LinearTimeLanguageModelConfig(7, mixer=mixer, **SIZES))
    params = drawn(model, X, 0.5)
    forward = jax.jit(lambda ids: model.forward(params, ids)[0])
    y, changed = (np.asarray(forward(ids)) for ids in (X, np.where(np.arange(6)[None] < 3, X, 0)))
    np.testing.assert_allclose(y[:, :3], changed[:, :3], rtol=1e-12)
    assert (y[:, 3:] != changed[:, 3:]).any()


def test_refusals():
    rows = {
        "mixer must be 'linear_attention', .* or 'mamba2', got 'attention'": {"mixer": "attention"},
        "heads must be a positive integer, got 0": {"heads": 0, "mixer": "mamba"},
        "head must be 'logits' or 'projection', got 'softmax'": {"head": "softmax"},
    }
    assert_refused(
        {
            f"linear_time_language_model: {said}": lambda of=of: linear_time_language_model(
                LinearTimeLanguageModelConfig(7, **of)
            )
            for said, of in rows.items()
        }
    )
