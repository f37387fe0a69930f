"""The two-phase update: the same numbers as optax on the whole gradient, which is never materialized."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same, drawn as drawn_params
from whole_models import CLASSES, LOSS, MODELS as WHOLE, POINTS

import handgrad as hg
from handgrad.factors import Outer, Stacked, Total
from handgrad.training import MicroBatches, init_state, train_step, two_phase_step, update

RNG = np.random.default_rng(0)
IDS, NEXT_IDS = (RNG.integers(0, 7, (4, 3)) for _ in range(2))
BLOCKS = hg.repeat(hg.residual(hg.chain(hg.linear(4), hg.tanh())), 3)
# Rows are few for the wide matrices alone: the others are multiplied once. A table has more rows than tokens.
MODELS = {
    "wide": (
        hg.chain(hg.linear(32), hg.repeat(hg.residual(hg.chain(hg.linear(32), hg.tanh())), 3), hg.linear(3)),
        RNG.standard_normal((5, 90)),
        CLASSES,
    ),
    "table": (hg.chain(hg.embedding(40, 2), hg.flatten(), hg.linear(3)), RNG.integers(0, 9, (5, 4)), CLASSES),
    "repeat": WHOLE["repeat"],
    "convolution": (
        hg.chain(hg.convolution(3, 2), hg.tanh(), hg.flatten(), hg.linear(3)),
        RNG.standard_normal((5, 4, 4, 1)),
        CLASSES,
    ),
    "kernels": (
        hg.chain(hg.repeat(hg.residual(hg.chain(hg.convolution(2, 2, groups=2), hg.tanh())), 3), hg.flatten()),
        RNG.standard_normal((5, 2, 2, 2)),
        CLASSES,
    ),
    "tied": (hg.tied_embedding(7, 4, BLOCKS), IDS, NEXT_IDS),
    "batch_norm": (hg.chain(hg.linear(4, bias=False), hg.batch_norm(), hg.linear(3)), POINTS, CLASSES),
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "schedule": optax.sgd(optax.cosine_decay_schedule(0.1, 5)),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(optax.cosine_decay_schedule(0.1, 5), weight_decay=0.1),
    "rmsprop": optax.chain(optax.clip(0.5), optax.rmsprop(0.01, centered=True)),
    # Biases of a stack have two axes, as matrices have: whatever a mask makes of that holds for each layer.
    "masked": optax.chain(
        optax.add_decayed_weights(0.1, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.adagrad(0.1),
    ),
    # Needs ‖dW‖ of each parameter, which is there when its dW is.
    "lamb": optax.lamb(0.1),
}


@functools.cache
def drawn(name):
    """A model, its parameters and its batch."""
    model, x, target = MODELS[name]
    return model, drawn_params(model, x, 0.5), x, target


@functools.cache
def factors_of(name):
    """The types of a model's factors and of its parameters: enough for what is refused at trace time."""
    model, params, x, target = drawn(name)
    return jax.eval_shape(hg.value_and_factors(model, LOSS), params, x, target)[1], jax.eval_shape(lambda: params)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("wide", [("momentum", 0.05), ("schedule", None)]),
        ("table", [("sgd", 0.05), ("schedule", None), ("adam", 0.05)]),
        ("repeat", [("sgd", 0.05), ("adam", 0.05), ("masked", None), ("rmsprop", 1e6)]),
        ("convolution", [("momentum", 0.05)]),
        ("kernels", [("adam", 0.05)]),
        ("tied", [("adamw", 0.05)]),
        ("batch_norm", [("momentum", 0.05), ("lamb", None)]),
    ],
)
def test_several_steps_are_those_of_the_whole_gradient(name, runs):
    """Parameters and state after four steps, and by autodiff, the whole gradient and optax."""
    model, params, x, target = drawn(name)

    def both(optimizer, clip, params):
        whole = optax.chain(optax.clip_by_global_norm(np.inf if clip is None else clip), optimizer)

        def step(carry, _):
            found, (params, opt_state) = carry
            found, _ = two_phase_step(model, LOSS, optimizer, clip)(found, x, target)
            grads = jax.grad(hg.objective(model, LOSS))(params, x, target)
            updates, opt_state = whole.update(grads, opt_state, params)
            return (found, (optax.apply_updates(params, updates), opt_state)), None

        start = init_state(params, optimizer), (params, whole.init(params))
        (found, (params, opt_state)), _ = jax.lax.scan(step, start, length=4)
        return (found.params, found.opt_state), (params, opt_state[1])

    @jax.jit
    def all_runs(params):
        return [both(OPTIMIZERS[optimizer], clip, params) for optimizer, clip in runs]

    for found, expected in all_runs(params):
        assert_same(found, expected, rtol=1e-11)


def test_the_step_takes_weights_and_gives_the_objective():
    model, params, x, target = drawn("repeat")
    weights = np.array([0.1, 0.0, 0.7, -0.2, 0.4])
    optimizer = OPTIMIZERS["momentum"]

    @jax.jit
    def both(params):
        steps = two_phase_step(model, LOSS, optimizer), train_step(model, LOSS, optimizer)
        return [step(init_state(params, optimizer), x, target, weights) for step in steps]

    assert_same(*both(params), rtol=1e-11)


def test_micro_batches_and_summed_gradients_are_one_batch():
    """Micro-batches of any size, weighted or not; Σ_b g_b in a factor's place; a learning rate in the state, where all
    parameters share it."""
    model, params, x, target = drawn("repeat")
    optimizer, in_the_state = optax.adam(0.01), optax.inject_hyperparams(optax.adam)(learning_rate=0.01)
    weights = np.arange(1.0, 6.0) / 7

    @jax.jit
    def ways(params):
        factors = hg.value_and_factors(model, LOSS)
        some, others = (factors(params, x[i], target[i])[1] for i in np.split(np.arange(5), [2]))
        _, whole = factors(params, x, target)
        parts = MicroBatches((some, others))
        summed = (whole[0], hg.materialize(whole[1]), whole[2])
        state = optimizer.init(params)
        plain, weighted = (
            [update(one, params, state, optimizer, 0.05, w) for one in (whole, parts)] for w in (None, weights)
        )
        plain.append(update(summed, params, state, optimizer, 0.05))
        plain.append((update(whole, params, in_the_state.init(params), in_the_state, 0.05)[0], state))
        return plain, weighted

    (whole, *same, (shared, _)), (weighted, in_parts) = ways(params)
    for found, expected in [*((one, whole) for one in same), (shared, whole[0]), (in_parts, weighted)]:
        assert_same(found, expected, rtol=1e-11)


def test_low_precision_is_summed_in_float32_and_a_zero_gradient_is_not_clipped():
    low, zero = {"b": Total(jnp.full((512, 2), 0.01, jnp.bfloat16))}, {"b": Total(jnp.zeros((3, 2)))}
    params, optimizer = ({"b": jnp.zeros(2, jnp.bfloat16)}, {"b": np.ones(2)}), optax.sgd(1.0)

    @jax.jit
    def both(params):
        given = zip((low, zero), params, (None, 1.0), strict=True)
        return [update(factors, p, optimizer.init(p), optimizer, clip)[0] for factors, p, clip in given]

    new, same = both(params)
    assert new["b"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(new["b"]), -0.01, rtol=4e-3)
    assert_same(same, params[1])


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
            "update: optimizer must update each parameter from its own gradient and state, got one that needs "
            "0.b too for 0.W: they meet in clip_by_global_norm (add); update itself clips the whole gradient, by "
            "clip_global_norm",
        ),
        (
            optax.lamb(0.1),
            "update: optimizer must work element by element on 1.0.W, whose 3 layers are updated one at a time, got "
            "one with reduce_sum",
        ),
        (optax.adafactor(0.1, min_dim_size_to_factor=2), "update: optimizer must work element by element on 1."),
        (optax.noisy_sgd(0.1, 0.1, key=0), "update: optimizer must work element by element on 1."),
    ],
)
def test_an_optimizer_that_needs_more_than_it_is_given(optimizer, sentence):
    assert sentence in refused("repeat", lambda f, p: (f, p), optimizer)


SGD = optax.sgd(0.1)
BAD_INPUT = {
    "clip_global_norm must be a positive number, got 0": lambda f, p: (f, p, 0),
    "weights must have shape (5,) (one for each example), got float64 (4,)": lambda f, p: (f, p, None, jnp.ones(4)),
    "factors must have params' structure, got 2 for 6 leaves": lambda f, p: (f[:1], p),
    "the gradient of 2.W must have shape (4, 2) (the parameter's), got float64 (4, 3)": lambda f, p: (
        f,
        (*p[:2], p[2]._replace(W=jnp.ones((4, 2)))),
    ),
    "factors must be of one batch, got none": lambda f, p: (hg.materialize(f), p),
    "MicroBatches must hold the factors of one batch at least, got none": lambda f, p: (MicroBatches(()), p),
    "weights need a factor, got a summed gradient, float64 (4,)": lambda f, p: (
        (f[0]._replace(b=f[0].b.sum()), *f[1:]),
        p,
        None,
        jnp.ones(5),
    ),
}


def refused(name, given, optimizer=SGD):
    """What update says at trace time of given(factors, params) -> (factors, params, and what follows the optimizer)."""

    def run(factors, params):
        factors, params, *rest = given(factors, params)
        return update(factors, params, optimizer.init(params), optimizer, *rest)

    with pytest.raises(hg.InputError) as error:
        jax.eval_shape(run, *factors_of(name))
    return str(error.value)


def test_bad_input():
    for sentence, given in BAD_INPUT.items():
        assert refused("repeat", given) == f"update: {sentence}"
    assert "batch_norm couples the examples of a batch" in refused("batch_norm", lambda f, p: (f, p, None, jnp.ones(5)))


@pytest.mark.parametrize("stacked", [True, False])
def test_a_kernel_is_multiplied_once(stacked):
    """Its norm would take as long as its gradient: as many convolutions as in a plain step, in the form that XLA
    compiles alike inside a loop and outside, features last on both sides."""
    loss, block = hg.squared_error(), hg.residual(hg.chain(hg.convolution(32, 2), hg.tanh()))
    model, x = hg.repeat(block, 2) if stacked else block, jax.ShapeDtypeStruct((3, 5, 5, 32), np.float32)
    state = jax.eval_shape(lambda: init_state(model.init(jax.random.key(0), x), optax.sgd(0.1)))
    ways = two_phase_step(model, loss, optax.sgd(0.1), 0.1), train_step(model, loss, optax.sgd(0.1))
    ours, plain = (str(jax.make_jaxpr(step)(state, x, x)) for step in ways)
    assert ours.count("conv_general_dilated[") == plain.count("conv_general_dilated[") == 3
    assert ours.count("lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2)") == 3


def temp_bytes(step, *arguments, donate):
    return jax.jit(step, donate_argnums=donate).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("stacked", "optimizer"), [(True, "adam"), (False, "sgd")])
def test_the_whole_gradient_is_never_materialized(stacked, optimizer):
    """Of few rows, for layers of a stack and one by one. Adam's old layer, the new one and its dW are live, and the two
    sides: not half of the sixteen layers."""
    n, depth, optimizer = 128, 16, {"sgd": optax.sgd(0.1), "adam": optax.adam(0.1)}[optimizer]
    side = jax.ShapeDtypeStruct((depth, 4, n) if stacked else (4, n), np.float32)
    param = jax.ShapeDtypeStruct((depth, n, n) if stacked else (n, n), np.float32)
    params = [param] if stacked else [param] * depth

    def step(sides, params, state):
        factors = [Stacked(Outer(*s)) if stacked else Outer(*s) for s in sides]
        return update(factors, params, state, optimizer, 0.1)

    state = jax.eval_shape(optimizer.init, params)
    assert temp_bytes(step, [(side, side)] * len(params), params, state, donate=(1, 2)) < depth * n * n * 4 / 2


@pytest.mark.parametrize("name", ["many rows", "table"])
def test_the_memory_of_a_step(name):
    """Of many rows, dW takes the place of what tanh kept: two arrays of all layers are live, A and dW, not three. Of a
    table, the touched rows."""
    n, depth = 64, 16
    blocks = hg.repeat(hg.residual(hg.chain(hg.linear(n), hg.tanh())), depth)
    model, x, most = {
        "many rows": (blocks, jax.ShapeDtypeStruct((n, n), np.float32), 2.6 * depth * n * n),
        "table": (hg.embedding(5000, n, dtype="float32"), jax.ShapeDtypeStruct((8,), np.int32), 5000 * n / 50),
    }[name]
    target = jax.ShapeDtypeStruct((*x.shape[:1], n), np.float32)
    state = jax.eval_shape(lambda: init_state(model.init(jax.random.key(0), x), SGD))
    assert temp_bytes(two_phase_step(model, hg.squared_error(), SGD, 0.1), state, x, target, donate=0) < 4 * most
