"""The two-phase update: the same numbers as the full gradient and optax, without the full gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.training import init_state, two_phase_step, update

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BATCH, STEPS, LARGE = 6, 3, 1e3
X, Y = jnp.asarray(RNG.standard_normal((BATCH, 4))), jnp.asarray(RNG.standard_normal((BATCH, 3)))
WEIGHTS = jnp.asarray(RNG.uniform(0.1, 2, BATCH))
IMAGES = jnp.asarray(RNG.standard_normal((BATCH, 4, 4, 2)))
IDS = jnp.asarray(RNG.integers(0, 5, (BATCH, 3)))
BLOCK = hg.residual(hg.chain(hg.layer_norm(), hg.linear(4), hg.tanh()))
STACK = hg.chain(blocks=hg.repeat(BLOCK, 3), head=hg.linear(3))

MODELS = {
    "mlp": (hg.mlp((4, 5, 3), hg.tanh()), hg.l2_loss(), X, Y),
    "repeat": (STACK, hg.l2_loss(), X, Y),
    "repeat of repeat": (hg.repeat(hg.repeat(BLOCK, 2), 3), hg.l2_loss(), X, X[::-1]),
    "tied": (layers.tied_embedding(5, 4, hg.repeat(BLOCK, 2)), hg.softmax_cross_entropy(), IDS, IDS[:, ::-1]),
    "convolution": (
        hg.chain(hg.convolution(3, (2, 2)), hg.tanh(), hg.flatten(), hg.linear(3)), hg.l2_loss(), IMAGES, Y,
    ),
    "summed already": (hg.chain(hg.linear(4, bias=False), hg.batch_norm(), hg.linear(3)), hg.l2_loss(), X, Y),
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9, nesterov=True),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(optax.linear_schedule(0.1, 0.01, 5), weight_decay=0.1, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)),
    "rmsprop": optax.chain(optax.clip(0.5), optax.rmsprop(0.01, momentum=0.5)),
}


def drawn(model, x):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape) / 2), jax.eval_shape(model.init, KEY, x))


def check(name, optimizer, clip, weights=None):
    """STEPS steps in two phases, and of jax.grad and optax: the same params and states."""
    model, loss, x, y = MODELS[name]
    clipped = optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)
    step = two_phase_step(model, loss, optimizer, clip)

    @jax.jit
    def both(found, params, state):
        value, grads = jax.value_and_grad(hg.objective(model, loss))(params, x, y, weights)
        updates, state = clipped.update(grads, state, params)
        return step(found, x, y, weights), (optax.apply_updates(params, updates), state, value)

    params = drawn(model, x)
    found, state = init_state(params, optimizer), clipped.init(params)
    for i in range(STEPS):
        (found, my_value), (params, state, value) = both(found, params, state)
        assert_same(my_value, value, rtol=1e-11)
        assert found.step == i + 1
    assert_same((found.params, found.opt_state), (params, state if clip is None else state[1]), rtol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_factor_clipped(name):
    check(name, optax.adam(0.01), clip=0.05)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer):
    check("repeat", OPTIMIZERS[optimizer], clip=None)
