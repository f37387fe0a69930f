"""The noise scale comes beside a step that is otherwise the same."""

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import assert_same
from whole_models import LOSS, drawn, made, rows

import handgrad as hg
from handgrad.training import init_state, train_step

OPTIMIZER = optax.adam(0.1)


@pytest.mark.parametrize("name", ["mlp", "repeat"])
def test_the_noise_scale_beside_the_step(name):
    model, params, x, target = drawn(name)
    G = rows(made(name)[1])
    state = init_state(params, OPTIMIZER)
    plain, noisy = (
        jax.jit(train_step(model, LOSS, OPTIMIZER, noise_scale=on))(state, x, target) for on in (False, True)
    )
    (found, (value, scale)), (expected, expected_value) = noisy, plain
    assert_same((found, value), (expected, expected_value), 1e-9)  # Adam divides small numbers by small ones
    B, small, big = len(G), jnp.mean(jnp.sum(G**2, axis=1)), jnp.sum(jnp.mean(G, axis=0) ** 2)
    sq_norm, trace = (B * big - small) / (B - 1), (small - big) / (1 - 1 / B)
    assert_same(scale, hg.NoiseScale(sq_norm, trace, trace / sq_norm), 1e-11)


def test_the_noise_scale_of_each_parameter():
    """Their traces add up to the whole one's."""
    model, params, x, target = drawn("mlp")
    state = init_state(params, OPTIMIZER)
    whole, of_leaves = (
        jax.jit(train_step(model, LOSS, OPTIMIZER, noise_scale=True, per_leaf=apart))(state, x, target)[1][1]
        for apart in (False, True)
    )
    scales = jax.tree.leaves(of_leaves, is_leaf=lambda node: isinstance(node, hg.NoiseScale))
    assert len(scales) == len(jax.tree.leaves(params))
    assert_same(sum(scale.trace for scale in scales), whole.trace)
    assert_same(sum(scale.sq_norm for scale in scales), whole.sq_norm)


def test_the_product_is_made_once():
    """The sums that the gradient and the noise scale need are the same: as many products as in the step alone, and none
    for the norms of single rows."""
    model, params, x, target = drawn("mlp")
    state = init_state(params, OPTIMIZER)
    plain, noisy = (
        jax.jit(train_step(model, LOSS, OPTIMIZER, noise_scale=on)).lower(state, x, target).compile().as_text()
        for on in (False, True)
    )
    assert noisy.count(" dot(") == plain.count(" dot(") > 3


def test_bad_input():
    model, params, x, target = drawn("mlp")
    step = train_step(model, LOSS, OPTIMIZER, noise_scale=True)
    state = init_state(params, OPTIMIZER)
    with pytest.raises(
        hg.InputError, match=r"^train_step: noise_scale takes every example alike, got weights float64 "
    ):
        step(state, x, target, jnp.ones(5))
    with pytest.raises(hg.InputError, match=r"^noise_scale: the batch must have more than 1 example, got 1"):
        step(state, x[:1], target[:1])
