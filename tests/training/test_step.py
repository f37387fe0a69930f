"""The noise scale comes beside a step that is otherwise the same."""

import jax
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same
from whole_models import LOSS, drawn, made, rows

from handgrad.folds import NoiseScale
from handgrad.training import init_state, train_step

OPTIMIZER = optax.adam(0.1)


@pytest.mark.parametrize("name", ["mlp", "repeat"])
def test_the_noise_scale_beside_the_step(name):
    """The traces of all parameters add up to that of the whole model."""
    model, params, x, target = drawn(name)
    options = {}, {"noise_scale": True}, {"noise_scale": True, "per_leaf": True}

    @jax.jit
    def steps(params):
        state = init_state(params, OPTIMIZER)
        return [train_step(model, LOSS, OPTIMIZER, **each)(state, x, target) for each in options]

    plain, (found, (value, scale)), (_, (_, of_leaves)) = steps(params)
    assert_same((found, value), plain, 1e-9)  # Adam divides small numbers by small ones
    G = np.asarray(rows(made(name)[1]))
    B, small, big = len(G), np.mean(np.sum(G**2, axis=1)), np.sum(np.mean(G, axis=0) ** 2)
    sq_norm, trace = (B * big - small) / (B - 1), (small - big) / (1 - 1 / B)
    assert_same(scale, NoiseScale(sq_norm, trace, trace / sq_norm), 1e-11)
    scales = jax.tree.leaves(of_leaves, is_leaf=lambda node: isinstance(node, NoiseScale))
    assert len(scales) == len(jax.tree.leaves(params))
    for field in ("trace", "sq_norm"):
        total = sum(float(getattr(of_leaf, field)) for of_leaf in scales)
        np.testing.assert_allclose(total, getattr(scale, field), rtol=1e-12)


def test_the_product_is_made_once():
    """The gradient and the noise scale share their sums: as many products as in the step alone, and none for the norms
    of single rows."""
    model, params, x, target = drawn("mlp")
    state = jax.eval_shape(lambda: init_state(params, OPTIMIZER))
    plain, noisy = (
        jax.jit(train_step(model, LOSS, OPTIMIZER, noise_scale=on)).lower(state, x, target).compile().as_text()
        for on in (False, True)
    )
    assert noisy.count(" dot(") == plain.count(" dot(") > 3


def test_bad_input():
    model, params, x, target = drawn("mlp")

    def noisy(*args):
        step = train_step(model, LOSS, OPTIMIZER, noise_scale=True)
        return lambda: jax.eval_shape(lambda: step(init_state(params, OPTIMIZER), *args))

    assert_refused(
        {
            "train_step: noise_scale takes every example alike, got weights float64.*": noisy(x, target, np.ones(5)),
            "noise_scale: the batch must have more than 1 example, got 1": noisy(x[:1], target[:1]),
        }
    )
