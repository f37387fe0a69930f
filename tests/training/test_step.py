"""One step: its gradient however it is computed, the update by optax, the noise scale beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same, noise
from whole_models import LOSS, drawn

import handgrad as hg
from handgrad.factors import PerExample
from handgrad.training import init_state, train_step
from handgrad.training.gradients import gradient

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


def test_by_autodiff_and_in_micro_batches():
    """The same step to rounding; the noise of a micro-batch is its own, and weights are those of the whole batch."""
    model, params, x, target = drawn("mlp")
    x, target = x[:4], target[:4]
    weights = np.linspace(0, 1, 4)

    @jax.jit
    def steps(params):
        state = init_state(params, OPTIMIZER, jax.random.key(0))
        options = {}, {"by": "autodiff"}, {"micro_batches": 2}, {"micro_batches": 4}
        return [
            [train_step(model, LOSS, OPTIMIZER, **each)(state, x, target, w) for each in options]
            for w in (None, weights)
        ]

    for plain, *same in steps(params):
        for found in same:
            assert_same(found, plain, 1e-9)


def test_the_noise_of_a_step_is_that_of_its_number_or_of_a_key_given():
    model, (_, _, x, _) = noise(), drawn("mlp")
    key, other = jax.random.split(jax.random.key(0))

    @jax.jit
    def values():
        state = init_state((), OPTIMIZER, key)._replace(step=jnp.int32(7))
        step, value = train_step(model, hg.squared_error(), OPTIMIZER), hg.objective(model, hg.squared_error())
        keys = jax.random.fold_in(key, 7), other
        found = step(state, x, x)[1], step(state, x, x, key=other)[1], step(init_state((), OPTIMIZER), x, x)[1]
        return found, (*(value((), x, x, key=k) for k in keys), value((), x, x))

    found, expected = values()
    assert_same(found, expected)
    assert len({float(one) for one in found}) == 3


def test_a_sum_over_micro_batches_needs_the_memory_of_one():
    model = hg.mlp((6, 64, 64, 3), hg.tanh())
    x, target = jax.ShapeDtypeStruct((4096, 6), "float32"), jax.ShapeDtypeStruct((4096,), "int32")
    state = jax.eval_shape(lambda x: init_state(model.init(jax.random.key(0), x), OPTIMIZER), x)
    whole, parts = (
        jax.jit(train_step(model, LOSS, OPTIMIZER, micro_batches=count)).lower(state, x, target).compile()
        for count in (1, 16)
    )
    assert parts.memory_analysis().temp_size_in_bytes < whole.memory_analysis().temp_size_in_bytes / 2


def test_another_dtype_for_both_passes():
    """bfloat16's gradient, within its rounding of float32's; parameters and their gradient stay float32."""
    model, params, x, target = drawn("mlp")
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))

    @jax.jit
    def gradients(params):
        options = {}, {"compute_dtype": jnp.bfloat16}, {"compute_dtype": jnp.bfloat16, "by": "autodiff"}
        return [gradient(model, LOSS, **each)(params, x, target)[1] for each in options]

    exact, *rounded = gradients(params)
    for found in rounded:
        for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            assert one.dtype == jnp.float32
            assert 1e-6 < np.max(np.abs(one - two)) / np.max(np.abs(two)) < 0.03
    text = jax.jit(gradient(model, LOSS, compute_dtype=jnp.bfloat16)).lower(params, x, target).as_text()
    assert all("bf16" in line for line in text.splitlines() if "dot_general" in line)


@pytest.mark.parametrize("name", ["lbfgs", "polyak_sgd", "reduce_on_plateau"])
def test_optimizers_that_take_more_than_the_gradient(name):
    """They are given value, gradient and value_fn; the steps are those of optax by autodiff, and the loss falls."""
    optimizer = {
        "lbfgs": optax.lbfgs(),
        "polyak_sgd": optax.polyak_sgd(),
        "reduce_on_plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    }[name]
    model, params, x, target = drawn("mlp")
    value_fn = hg.objective(model, LOSS)

    def by_optax(carry, _):
        params, opt_state = carry
        value, grads = jax.value_and_grad(value_fn)(params, x, target)
        extra = {"value": value, "grad": grads, "value_fn": lambda params: value_fn(params, x, target)}
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return (optax.apply_updates(params, updates), opt_state), value

    @jax.jit
    def both(params):
        state = init_state(params, optimizer)
        step = train_step(model, LOSS, optimizer)
        _, found = jax.lax.scan(lambda state, _: step(state, x, target), state, length=6)
        return found, jax.lax.scan(by_optax, (params, optimizer.init(params)), length=6)[1]

    found, expected = both(params)
    assert_same(found, expected, 1e-7)
    assert found[-1] < found[0]


def test_a_step_that_is_not_finite_is_not_taken():
    """Also where the value is finite and only the gradient isn't: √0 at 0."""
    model = hg.Layer(
        lambda key, x: jnp.zeros(()),
        lambda w, x, key=None: (x * jnp.sqrt(w), (x, w)),
        lambda residuals, dy: (dy, PerExample(dy[:, 0] * residuals[0][:, 0] / (2 * jnp.sqrt(residuals[1])))),
    )
    state = init_state(jnp.zeros(()), OPTIMIZER)
    x = np.ones((2, 1))
    after, value = jax.jit(train_step(model, hg.squared_error(), OPTIMIZER, check_finite=True))(state, x, x)
    assert np.isnan(value)
    assert after.step == 1
    assert_same((after.params, after.opt_state), (state.params, state.opt_state))


def test_bad_input():
    model, params, x, target = drawn("mlp")

    def noisy(*args):
        step = train_step(model, LOSS, OPTIMIZER, noise_scale=True)
        return lambda: jax.eval_shape(lambda: step(init_state(params, OPTIMIZER), *args))

    assert_refused(
        {
            "train_step: noise_scale takes every example alike, got weights float64.*": noisy(x, target, np.ones(5)),
            "train_step: noise_scale must be without micro_batches, got both": lambda: train_step(
                model, LOSS, OPTIMIZER, noise_scale=True, micro_batches=2
            ),
            "train_step: micro_batches must be a positive integer, got 0": lambda: train_step(
                model, LOSS, OPTIMIZER, micro_batches=0
            ),
            "train_step: compute_dtype must be a floating-point dtype, got 'int8'": lambda: train_step(
                model, LOSS, OPTIMIZER, compute_dtype="int8"
            ),
            "noise_scale: the batch must have more than 1 example, got 1": noisy(x[:1], target[:1]),
        }
    )
