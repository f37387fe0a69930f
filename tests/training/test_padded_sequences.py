"""Batches that are pytrees, as padded sequences with their lengths are: everything that trains takes them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import assert_refused, assert_same, drawn

import handgrad as hg
from handgrad.folds.curvature import kfac_factors
from handgrad.training import MicroBatches, TrainState, fit, init_state, train_step, two_phase_step, update
from handgrad.training.batches import order_of

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
MODEL, LOSS = hg.chain(hg.lstm(3, returns="last"), hg.linear(3)), hg.softmax_cross_entropy()
OPTIMIZER = optax.adam(0.01)
X = hg.Sequences(RNG.standard_normal((6, 5, 2)), np.array([5, 2, 3, 1, 4, 2]))
LABELS = RNG.integers(0, 3, 6)
PARAMS = drawn(MODEL, X, 0.5)
STATE = init_state(PARAMS, OPTIMIZER, KEY)


def picked(batch, tree):
    return jax.tree.map(lambda leaf: leaf[batch], tree)


def trained(model, loss, state, data, batch_size, **options):
    (found, metrics), *_ = fit(model, loss, OPTIMIZER, state, data, batch_size=batch_size, epochs=1, **options)
    return found, metrics


def by_optax(state, x, target):
    """A step with the mean of each sequence's gradient alone, and optax; and the objective before it."""
    alone = jax.value_and_grad(hg.objective(MODEL, LOSS))
    one_by_one = jax.tree.map(lambda leaf: leaf[:, None], (x, target))
    value, grads = jax.tree.map(lambda g: g.mean(0), jax.vmap(alone, (None, 0, 0))(state.params, *one_by_one))
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1, state.key), value


def test_an_epoch_is_the_steps_of_its_batches():
    """The order is that of the key; every batch has the lengths and labels of its own sequences."""
    found, metrics = trained(MODEL, LOSS, STATE, (X, LABELS), 3)

    @jax.jit
    def expected(state):
        batches = order_of(KEY, 0, 6).reshape(2, 3)
        data = jax.tree.map(jnp.asarray, (X, LABELS))
        return jax.lax.scan(lambda state, batch: by_optax(state, *picked(batch, data)), state, batches)

    state, losses = expected(STATE)
    assert_same(found, state, 1e-9)  # Adam divides small numbers by small ones
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-12)


def test_a_target_of_several_arrays():
    """A CtcTarget, whose lengths go with its labels; the inputs are a dict."""
    inner = hg.each_step(hg.linear(4))
    model = hg.Layer(
        lambda key, x: inner.init(key, x["frames"]),
        lambda params, x, key=None: inner.forward(params, x["frames"], key),
        inner.backward,
    )
    x = {"frames": RNG.standard_normal((4, 5, 2))}
    target = hg.CtcTarget(RNG.integers(1, 4, (4, 2)), np.array([5, 4, 5, 3]), np.array([2, 1, 0, 2]))
    params, loss = drawn(model, x), hg.ctc_loss()
    state = init_state(params, OPTIMIZER, KEY)
    found, metrics = trained(model, loss, state, (x, target), 4)

    @jax.jit
    def expected(params):
        value, grads = jax.value_and_grad(hg.objective(model, loss))(params, x, target)
        return value, optax.apply_updates(params, OPTIMIZER.update(grads, state.opt_state, params)[0])

    value, new = expected(params)
    assert_same(found.params, new, 1e-9)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-12)


def test_every_other_step():
    """The two phases, whole and of micro-batches, and the noise scale beside a step."""

    @jax.jit
    def steps(state):
        plain = train_step(MODEL, LOSS, OPTIMIZER)(state, X, LABELS)
        noisy, (value, scale) = train_step(MODEL, LOSS, OPTIMIZER, noise_scale=True)(state, X, LABELS)
        factors = hg.value_and_factors(MODEL, LOSS)
        parts = [factors(state.params, picked(i, X), LABELS[i])[1] for i in (slice(0, 2), slice(2, 6))]
        micro = update(MicroBatches(tuple(parts)), state.params, state.opt_state, OPTIMIZER)
        two_phase = two_phase_step(MODEL, LOSS, OPTIMIZER)(state, X, LABELS)
        return by_optax(state, *jax.tree.map(jnp.asarray, (X, LABELS))), plain, two_phase, (noisy, value), micro, scale

    (state, value), *same, micro, scale = steps(STATE)
    for found in same:
        assert_same(found, (state, value), 1e-9)
    assert_same(micro, (state.params, state.opt_state), 1e-9)
    assert np.isfinite(scale.simple)


def test_kfac():
    """The value is the objective, and no NaN comes out of the padding."""
    blocks = jax.eval_shape(lambda p: kfac_factors(hg.value_and_factors(MODEL, LOSS)(p, X, LABELS)[1]), PARAMS)
    optimizer = optax.chain(hg.training.scale_by_kfac(blocks), optax.scale(-0.1))

    @jax.jit
    def step(state):
        found, value = hg.training.kfac_step(MODEL, LOSS, optimizer)(state, X, LABELS)
        objective = hg.objective(MODEL, LOSS)
        return value, objective(PARAMS, X, LABELS), objective(found.params, X, LABELS)

    value, before, after = step(init_state(PARAMS, optimizer, KEY))
    np.testing.assert_allclose(value, before, rtol=1e-12)
    assert after < before


WRONG = {
    "x must have as many examples in every leaf, got 6 in x.X and 5 in x.lengths": (
        X._replace(lengths=X.lengths[:5]),
        LABELS,
    ),
    r"target must have as many examples in every leaf, got 6 in target\[0\] and 4 in target\[1\]": (
        X,
        (LABELS, LABELS[:4]),
    ),
    "target must have a batch axis in front, got int; a list .*": (X, [0, 1, 2, 0, 1, 2]),
}


def test_examples_that_do_not_belong_together():
    functions = {
        "fit": lambda x, target: fit(MODEL, LOSS, OPTIMIZER, STATE, (x, target), batch_size=2, epochs=1),
        "value_and_grad": partial(hg.value_and_grad(MODEL, LOSS), PARAMS),
        "value_and_factors": partial(hg.value_and_factors(MODEL, LOSS), PARAMS),
    }
    for where, run in functions.items():
        assert_refused({f"{where}: {said}": partial(run, *data) for said, data in WRONG.items()})
