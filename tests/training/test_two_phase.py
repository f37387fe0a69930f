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
        hg.chain(hg.convolution(3, (2, 2)), hg.tanh(), hg.flatten(), hg.linear(3)),
        hg.l2_loss(),
        IMAGES,
        Y,
    ),
    "summed already": (layers.reversible_sequence(hg.linear(2), hg.linear(2), 3), hg.l2_loss(), X, X[::-1]),
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9, nesterov=True),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(
        optax.linear_schedule(0.1, 0.01, 5), weight_decay=0.1, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)
    ),
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


def folded(name="mlp"):
    model, loss, x, y = MODELS[name]
    params = drawn(model, x)
    return params, hg.value_and_factors(model, loss)(params, x, y)[1]


@pytest.mark.parametrize("clip", [0.05, LARGE], ids=["clipped", "inactive"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["mean", "weighted"])
def test_micro_batches_are_one_batch(clip, weights):
    model, loss, x, y = MODELS["repeat"]
    params, optimizer = drawn(model, x), optax.sgd(0.1)
    halves = [slice(0, 2), slice(2, BATCH)]

    @jax.jit
    def three(params):
        whole, *parts = (
            hg.value_and_factors(model, loss)(params, x[at], y[at])[1] for at in (slice(0, BATCH), *halves)
        )
        of_parts = None if weights is None else [weights[at] for at in halves]
        grads = jax.grad(hg.objective(model, loss))(params, x, y, weights)
        grads, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())
        state = optimizer.init(params)
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        found = [
            update(factors, params, state, optimizer, clip, of_factors)[0]
            for factors, of_factors in ((whole, weights), (parts, of_parts))
        ]
        return found, [expected] * 2

    assert_same(*three(params), rtol=1e-11)


def test_the_full_gradient_never_stands_in_memory():
    """24 layers, clipped, with Adam: a few layers' worth of room, where the gradient alone takes 24."""
    width, depth, batch = 64, 24, 4
    model, optimizer = hg.repeat(hg.residual(hg.chain(hg.linear(width), hg.tanh())), depth), optax.adam(0.1)
    x = jax.ShapeDtypeStruct((batch, width), jnp.float64)
    params = jax.eval_shape(model.init, KEY, x)
    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    step = jax.jit(two_phase_step(model, hg.l2_loss(), optimizer, 1.0), donate_argnums=0)
    one_layer = width * width * 8
    assert step.lower(state, x, x).compile().memory_analysis().temp_size_in_bytes < depth * one_layer / 2


def test_donated():
    model, loss, x, y = MODELS["repeat"]
    state = init_state(drawn(model, x), optax.adam(0.1))
    step = two_phase_step(model, loss, optax.adam(0.1), 0.05)
    expected, _ = jax.jit(step)(state, x, y)
    given = jax.tree.map(jnp.copy, state)
    found, _ = jax.jit(step, donate_argnums=0)(given, x, y)
    assert_same(found, expected, rtol=1e-13)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params))


ONE_BY_ONE = "update: optimizer must treat each parameter by itself, got one where the update of "


@pytest.mark.parametrize(
    "optimizer",
    [optax.clip_by_global_norm(1.0), optax.chain(optax.adam(0.1), optax.normalize_by_update_norm())],
)
def test_an_optimizer_that_needs_all_gradients(optimizer):
    params, factors = folded()
    with pytest.raises(hg.InputError, match=re.escape(ONE_BY_ONE) + r".* needs the gradient of .*; clip_global_norm"):
        update(factors, params, optimizer.init(params), optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lars(0.1),
        optax.lamb(0.1),
        optax.adafactor(0.1),
        optax.clip_by_block_rms(1.0),
        optax.add_noise(1.0, 0.5, 0),
    ],
    ids=["lars", "lamb", "adafactor", "block rms", "noise"],
)
def test_an_optimizer_that_needs_all_layers(optimizer):
    """A norm over a stack is no norm over each layer. Where nothing is stacked, the same optimizers will do."""
    model, loss, x, y = MODELS["repeat"]
    params = drawn(model, x)

    def run(params):
        _, factors = hg.value_and_factors(model, loss)(params, x, y)
        return update(factors, params, optimizer.init(params), optimizer)

    with pytest.raises(
        hg.InputError, match=r"^update: optimizer must treat each layer of the stack .*, by itself, got"
    ):
        jax.eval_shape(run, params)


def test_weights_for_a_summed_gradient():
    params, factors = folded("summed already")
    sgd = optax.sgd(0.1)
    with pytest.raises(hg.InputError, match=r"^update: weights need a factor for .*, got a summed gradient, float64 "):
        update(factors, params, sgd.init(params), sgd, weights=WEIGHTS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"weights": WEIGHTS[1:]}, r"update: weights must have shape \(6,\) one for each example, got float64 \(5,\)"),
        ({"weights": [WEIGHTS] * 2}, "update: weights must be one array for each of 1 micro-batches, got 2"),
        ({"clip_global_norm": 0.0}, "update: clip_global_norm must be a positive number, got 0.0"),
        ({"factors": []}, "update: factors must have the structure of params, or be a list of such, got another tree"),
    ],
    ids=["weights", "two weights", "clip", "factors"],
)
def test_bad_arguments(arguments, sentence):
    params, factors = folded()
    sgd = optax.sgd(0.1)
    arguments = {"factors": factors, "params": params, "opt_state": sgd.init(params), "optimizer": sgd} | arguments
    with pytest.raises(hg.InputError, match=sentence):
        update(**arguments)
