"""The noise scale comes beside a step that is otherwise the same."""

import jax
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same
from whole_models import LOSS, drawn

import handgrad as hg
from handgrad.training import init_state, train_step

OPTIMIZER = optax.adam(0.1)


@pytest.mark.parametrize("name", ["mlp", "repeat"])
def test_the_noise_scale_beside_the_step(name):
    model, params, x, target = drawn(name)
    options = {}, {"noise_scale": True}, {"noise_scale": True, "per_leaf": True}

    @jax.jit
    def steps(params):
        state = init_state(params, OPTIMIZER)
        _, factors = hg.value_and_factors(model, LOSS)(params, x, target)
        expected = [hg.noise_scale(factors, per_leaf=per_leaf) for per_leaf in (False, True)]
        return [train_step(model, LOSS, OPTIMIZER, **each)(state, x, target) for each in options], expected

    (plain, (found, (value, scale)), (_, (_, of_leaves))), expected = steps(params)
    assert_same((found, value), plain, 1e-9)  # Adam divides small numbers by small ones
    assert_same([scale, of_leaves], expected, 1e-11)


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
