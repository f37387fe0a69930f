"""optax's optimizers, taken apart: each is either optax's own numbers, or refused with a reason that is true of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from helpers import assert_same, drawn

import handgrad as hg
from handgrad.factors import Outer, Stacked, Total
from handgrad.training import init_state, two_phase_step, update
from handgrad.training.leafwise import leafwise

RNG = np.random.default_rng(0)
BATCH, STEPS = 4, 3


def normal(*shape):
    return RNG.standard_normal(shape)


# Each step has factors of its own.
FLAT = {"W": Outer(normal(STEPS, BATCH, 3), normal(STEPS, BATCH, 2)), "b": Total(normal(STEPS, BATCH, 2))}
STACK = {
    "W": Stacked(Outer(normal(STEPS, 2, BATCH, 3), normal(STEPS, 2, BATCH, 2))),
    "b": Stacked(Total(normal(STEPS, 2, BATCH, 2))),
}
PARAMS = {"W": normal(3, 2), "b": normal(2)}
PARAMS_OF_STACK = {"W": normal(2, 3, 2), "b": normal(2, 2)}


def of_matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def before_the_third(step, **_):
    return step < 2


def then_sgd(transformation):
    return optax.chain(transformation, optax.sgd(0.1))


# What is opened, or tells parameters apart.
BRANCHES = {
    "partition": optax.partition({"matrix": optax.adam(0.1), "vector": optax.sgd(0.1)}, {"W": "matrix", "b": "vector"}),
    "MultiSteps": optax.MultiSteps(optax.adam(0.1), every_k_schedule=2).gradient_transformation(),
    "conditionally_transform": optax.conditionally_transform(optax.adam(0.1), before_the_third),
    "conditionally_mask": optax.conditionally_mask(optax.adam(0.1), before_the_third),
}
# With these, what works for any parameter, also as one layer of a stack after the other.
ELEMENTWISE = BRANCHES | {
    "sgd": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, mask=of_matrices),
    "adabelief": optax.adabelief(0.1),
    "adamax": optax.adamax(0.1),
    "amsgrad": optax.amsgrad(0.1),
    "nadam": optax.nadam(0.1),
    "radam": optax.radam(0.1),
    "yogi": optax.yogi(0.1),
    "lion": optax.lion(0.1),
    "rprop": optax.rprop(0.1),
    "adan": optax.adan(0.1),
    "ademamix": optax.contrib.ademamix(0.1),
    "schedule_free": optax.contrib.schedule_free_adamw(0.1),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), sync_period=2),
    "masked": optax.masked(optax.adam(0.1), of_matrices),
    "inject_hyperparams": optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, 3)),
    "apply_every": then_sgd(optax.apply_every(2)),
    "ema": optax.chain(optax.sgd(0.1), optax.ema(0.9)),
}
# What looks across a parameter: fine where that is one layer. With the reason why it is refused for a stack.
LAYERWISE = {
    "lamb": (optax.lamb(0.1), "reduce_sum in scale_by_trust_ratio"),
    "lars": (optax.lars(0.1), "reduce_sum in scale_by_trust_ratio"),
    "adafactor": (optax.adafactor(0.1), "reduce_sum in clip_by_block_rms"),
    "fromage": (optax.fromage(0.1), "reduce_sum in scale_by_trust_ratio"),
    "adaptive_grad_clip": (then_sgd(optax.adaptive_grad_clip(0.1)), "reduce_sum in adaptive_grad_clip"),
    "centralize": (then_sgd(optax.centralize()), "reduce_sum in centralize"),
    "add_noise": (then_sgd(optax.add_noise(0.1, 0.5, jax.random.key(0))), "random_split in add_noise"),
    "novograd": (optax.novograd(0.1), "a state of shape ()"),
    "zero_nans": (then_sgd(optax.zero_nans()), "a state of shape ()"),
    "sm3": (optax.sm3(0.1), "a state of shape (2,)"),
    "muon": (optax.contrib.muon(0.1), "reshape in scale_by_muon"),
}
# With f(0, p) = p for W, and no state of its own: W's elements without a gradient need no update.
KEEP_UNTOUCHED = {
    "sgd": optax.sgd(0.1),
    "schedule": optax.sgd(optax.cosine_decay_schedule(0.1, 5)),
    "inject_hyperparams": ELEMENTWISE["inject_hyperparams"],
    "sign_sgd": optax.sign_sgd(0.1),
    "clip": then_sgd(optax.clip(0.5)),
    "of another": then_sgd(optax.add_decayed_weights(0.1, mask={"W": False, "b": True})),
    "partition": optax.partition({"W": optax.sgd(0.1), "b": optax.adam(0.1)}, {"W": "W", "b": "b"}),
    "condition": optax.conditionally_transform(optax.sgd(0.1), before_the_third),
}
# Without a state of its own, but with an update for them; or, as random numbers, one that isn't their own.
MOVE_UNTOUCHED = {
    "decay": then_sgd(optax.add_decayed_weights(0.1)),
    "noise": then_sgd(optax.add_noise(0.1, 0.5, jax.random.key(0))),
    "normalized": optax.stateless(lambda g, _: jax.tree.map(lambda a: -a / jnp.abs(a), g)),
    "of params": optax.stateless(lambda g, p: jax.tree.map(lambda a, b: -a * b, g, p)),
    "bias": optax.stateless(lambda g, _: jax.tree.map(lambda a: 1e-3 - a, g)),
    "drawn": optax.stateless(lambda g, _: jax.tree.map(lambda a: a * jax.random.normal(jax.random.key(0), a.shape), g)),
    "positive": then_sgd(optax.keep_params_nonnegative()),
}
# What needs several parameters' gradients for one of them, and where they meet.
TOGETHER = {
    "clip_by_global_norm": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "normalize_by_update_norm": then_sgd(optax.normalize_by_update_norm()),
    "apply_if_finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "MultiSteps": optax.MultiSteps(
        optax.sgd(0.1), 2, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
    "flatten": optax.flatten(optax.adam(0.1)),
    "scale_by_lbfgs": optax.lbfgs(0.1, linesearch=None),
    "scale_by_dog": optax.contrib.dog(),
    "prodigy": optax.contrib.prodigy(),
    "mechanize": optax.contrib.mechanize(optax.sgd(0.1)),
    "stateless": optax.stateless(lambda g, p: jax.tree.map(lambda a: a / optax.tree.norm(g), g)),
}
# What can't be updated from gradients, state and parameters at all, by train_step neither.
MORE = {
    "lbfgs": (optax.lbfgs(), "'value', 'grad', and 'value_fn'"),
    "polyak_sgd": (optax.polyak_sgd(), "'value'"),
    "reduce_on_plateau": (optax.contrib.reduce_on_plateau(), "'value'"),
}


def by_both(factors, params, optimizers):
    """All optimizers' parameters and states after each step, in two phases and by optax on the whole gradient."""

    def one_step(carried, factors):
        new = {}
        for name, (found, expected) in carried.items():
            gradient = jax.tree.map(lambda g: g / BATCH, hg.materialize(factors))
            updates, state = optimizers[name].update(gradient, expected[1], expected[0])
            new[name] = (update(factors, *found, optimizers[name]), (optax.apply_updates(expected[0], updates), state))
        return new, new

    # Not of array types that a step would change: weak types, and NumPy's.
    start = jax.tree.map(jnp.asarray, {name: (params, one.init(params)) for name, one in optimizers.items()})
    return jax.jit(lambda start: jax.lax.scan(one_step, start, factors)[1])(
        {name: (one, one) for name, one in start.items()}
    )


@pytest.mark.parametrize("kind", ["parameters", "stacks"])
def test_the_numbers_are_optaxs(kind):
    """Three steps of each, with new gradients: MultiSteps emits in the second, the conditions end in the third."""
    layerwise = {name: optimizer for name, (optimizer, _) in LAYERWISE.items()}
    apart, stacked = (FLAT, PARAMS, BRANCHES | layerwise), (STACK, PARAMS_OF_STACK, ELEMENTWISE)
    both = by_both(*(apart if kind == "parameters" else stacked))
    for name, pair in both.items():
        found, expected = ([numbers(leaf) for leaf in jax.tree.leaves(one)] for one in pair)
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_who_keeps_what_has_no_gradient(dtype):
    """Those that are proven to, and nobody with a state of the parameter, as momentum and Adam."""
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), PARAMS)

    def kept(optimizers):
        programs = ((name, leafwise("update", one, params, one.init(params))) for name, one in optimizers.items())
        return {name for name, program in programs if program.keeps_untouched(0, params["W"].dtype)}

    others = ELEMENTWISE | {name: optimizer for name, (optimizer, _) in LAYERWISE.items()} | MOVE_UNTOUCHED
    assert kept(KEEP_UNTOUCHED) == set(KEEP_UNTOUCHED)
    assert kept(others) == {"inject_hyperparams"}


def test_a_branch_of_one_stack():
    """It is opened too, where there is no other parameter."""
    both = by_both({"W": STACK["W"]}, {"W": PARAMS_OF_STACK["W"]}, {"MultiSteps": BRANCHES["MultiSteps"]})
    assert_same(*both["MultiSteps"], 1e-9)


def numbers(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def said(optimizer, factors, params):
    """What is raised at trace time."""
    first = jax.tree.map(lambda a: a[0], factors)
    with pytest.raises(hg.InputError) as error:
        jax.eval_shape(lambda f, p: update(f, p, optimizer.init(p), optimizer), first, params)
    return str(error.value)


@pytest.mark.parametrize("name", LAYERWISE)
def test_what_looks_across_the_layers_of_a_stack(name):
    optimizer, reason = LAYERWISE[name]
    sentence = said(optimizer, STACK, PARAMS_OF_STACK)
    assert sentence.startswith("update: optimizer must work element by element on ")
    assert sentence.endswith(f", whose 2 layers are updated one at a time, got one with {reason}")


@pytest.mark.parametrize("name", TOGETHER)
def test_what_needs_several_gradients(name):
    sentence = said(TOGETHER[name], FLAT, PARAMS)
    must = "update: optimizer must update each parameter from its own gradient and state"
    assert sentence.startswith(f"{must}, got one that needs b too for W: they meet in {name} (")
    clips = sentence.endswith("; update itself clips the whole gradient, by clip_global_norm")
    assert clips == (name == "clip_by_global_norm")
    assert said(TOGETHER[name], STACK, PARAMS_OF_STACK) == sentence


@pytest.mark.parametrize("name", MORE)
def test_what_needs_more_than_gradients(name):
    optimizer, needed = MORE[name]
    sentence = said(optimizer, FLAT, PARAMS)
    assert sentence.startswith("update: optimizer.update(gradients, state, parameters) must run, got TypeError: ")
    assert sentence.endswith(needed)


def test_a_state_of_another_structure():
    """optax.monitor starts with an empty one."""
    optimizer = then_sgd(optax.monitor({"norm": lambda updates, **_: optax.tree.norm(updates)}))
    assert (
        said(optimizer, FLAT, PARAMS)
        == "update: optimizer must keep its state's structure, got 0 leaves before and 1 after"
    )


def test_a_branch_with_an_effect_is_not_opened():
    """Both of its cases would be run."""

    def halved(updates):
        jax.debug.print("halved")
        return jax.tree.map(lambda u: u / 2, updates)

    def step(updates, state, params=None):
        return jax.lax.cond(state < 1, halved, lambda updates: updates, updates), state + 1

    optimizer = optax.GradientTransformation(lambda params: jnp.zeros((), int), step)
    assert said(optimizer, FLAT, PARAMS).endswith(
        "W: they meet in test_a_branch_with_an_effect_is_not_opened.<locals>.step (cond)"
    )


def test_multi_steps_over_a_model():
    """MultiSteps itself, which is no GradientTransformation: two steps of half a batch are one of the whole."""
    model, loss = hg.mlp((3, 4, 2), hg.tanh()), hg.squared_error()
    x, target = normal(6, 3), normal(6, 2)
    in_halves = optax.MultiSteps(optax.adam(0.1), 2)

    @jax.jit
    def both(params):
        state = init_state(params, in_halves)
        for half in (slice(0, 3), slice(3, 6)):
            state, _ = two_phase_step(model, loss, in_halves)(state, x[half], target[half])
        whole, _ = two_phase_step(model, loss, optax.adam(0.1))(init_state(params, optax.adam(0.1)), x, target)
        return state.params, whole.params

    assert_same(*both(drawn(model, x)), 1e-9)
