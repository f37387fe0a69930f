"""Whole models with the batch on four devices, and some parameters on two, give the numbers of one device, and
all-gather nothing of the size of the batch."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from devices.on_devices import close, gathered_bytes, mesh_of, put
from jax.sharding import PartitionSpec
from whole_models import LOSS, normal_params

import handgrad as hg
from handgrad.models import Gpt2Config, LlamaConfig, LstmLanguageModelConfig
from handgrad.training import init_state, two_phase_step

RNG = np.random.default_rng(0)
BATCH = 8
IDS, LABELS = (RNG.integers(0, 7, (BATCH, 6)) for _ in range(2))
OPTIMIZER = optax.adam(0.01)
MODELS = {
    # Layers of one shape: op by op, each operation is a program of its shapes.
    "mlp": (hg.mlp((4, 4, 4), hg.tanh()), RNG.standard_normal((BATCH, 4)), RNG.integers(0, 4, BATCH)),
    "convnet": (
        hg.chain(hg.convolution(4, 3), hg.layer_norm(), hg.relu(), hg.max_pool(2), hg.flatten(), hg.linear(4)),
        RNG.standard_normal((BATCH, 8, 8, 2)),
        RNG.integers(0, 4, BATCH),
    ),
    "lstm": (hg.models.lstm_language_model(LstmLanguageModelConfig(7, width=4, layers=2)), IDS, LABELS),
    "gpt2": (hg.models.gpt2(Gpt2Config(7, tokens=6, width=4, blocks=2, heads=2, residuals="recompute")), IDS, LABELS),
    "llama": (
        hg.models.llama(LlamaConfig(vocabulary=7, width=4, hidden=6, blocks=2, heads=2, kv_heads=1, rotary_base=10.0)),
        IDS,
        LABELS,
    ),
}


def slow(name):
    """What compiles for longest is left to `-m slow`."""
    return [] if name in ("mlp", "convnet") else [pytest.mark.slow]


def each(names):
    return pytest.mark.parametrize("name", [pytest.param(name, marks=slow(name)) for name in names])


every_model = each(MODELS)


@functools.cache
def drawn(name):
    model, x, target = MODELS[name]
    return normal_params(model, x), *jax.device_put((x, target))


def of_model(name):
    """(params, x, target) -> everything that a backward pass by hand can give."""
    model = MODELS[name][0]
    f = hg.custom_vjp(model)

    def by_custom_vjp(params, x, target):
        losses, _ = LOSS.forward(f(params, x), target)
        return jnp.mean(losses)

    def run(params, x, target):
        state = init_state(params, OPTIMIZER)
        return {
            "value_and_grad": hg.value_and_grad(model, LOSS)(params, x, target),
            "custom_vjp": jax.grad(by_custom_vjp)(params, x, target),
            "sq_norms": hg.sq_norms(hg.value_and_factors(model, LOSS)(params, x, target)[1]),
            "clipped_grad": hg.clipped_grad(model, LOSS, l2_clip_norm=0.1)(params, x, target),
            "two_phase_step": two_phase_step(model, LOSS, OPTIMIZER, 0.1)(state, x, target)[0].params,
        }

    return run


@functools.cache
def on_one_device(name):
    return jax.device_get(jax.jit(of_model(name))(*drawn(name)))


def sharded(mesh, name, layout="whole"):
    """A model's parameters in a layout, and its batch over "data"."""
    params, x, target = drawn(name)
    return laid_out(mesh, params, layout), put(mesh, x, "data"), put(mesh, target, "data")


@every_model
@pytest.mark.parametrize("axes", ["explicit", "auto"])
def test_a_sharded_batch(name, axes):
    mesh = mesh_of(axes, 4)
    arguments = sharded(mesh, name)
    with jax.set_mesh(mesh):
        program = jax.jit(of_model(name)).lower(*arguments).compile()
        close(program(*arguments), on_one_device(name))
    assert gathered_bytes(program.as_text()) < arguments[1].nbytes


def test_op_by_op():
    """Without jit, every operation determines the sharding of its result."""
    mesh = mesh_of("explicit", 4)
    arguments = sharded(mesh, "mlp")  # drawn without the mesh: other tests draw no others
    with jax.set_mesh(mesh):
        close(of_model("mlp")(*arguments), on_one_device("mlp"))


@every_model
def test_inside_shard_map(name):
    """Local gradients, which the caller averages; and a function whose replicated parameters' cotangents JAX sums."""
    model, mesh = MODELS[name][0], mesh_of("auto", 4)
    batch, whole, f = PartitionSpec("data"), PartitionSpec(), hg.custom_vjp(model)

    def local(params, x, target):
        norms = hg.sq_norms(hg.value_and_factors(model, LOSS)(params, x, target)[1])
        clipped = hg.clipped_grad(model, LOSS, l2_clip_norm=0.1)(params, x, target)
        mean = jax.lax.pmean(hg.value_and_grad(model, LOSS)(params, x, target), "data")
        return mean, norms, jax.lax.psum(clipped, "data")

    def objective(params, x, target):
        losses, _ = LOSS.forward(f(params, x), target)
        return jax.lax.pmean(jnp.mean(losses), "data")

    over = functools.partial(jax.shard_map, mesh=mesh, in_specs=(whole, batch, batch))

    @jax.jit
    def run(params, x, target):
        grads, norms, clipped = over(local, out_specs=(whole, batch, whole))(params, x, target)
        by_custom_vjp = jax.grad(over(objective, out_specs=whole))(params, x, target)
        return {"value_and_grad": grads, "sq_norms": norms, "clipped_grad": clipped, "custom_vjp": by_custom_vjp}

    found = run(*drawn(name))
    close(found, {key: on_one_device(name)[key] for key in found})


def laid_out(mesh, params, layout):
    """Parameters whole, or each with the last ("tensor") or the first ("fully" sharded) axis split, where it can be."""

    def place(p):
        axis, over = (p.ndim - 1, "model") if layout == "tensor" else (0, "data")
        return put(mesh, p, *(over if i == axis and n % mesh.shape[over] == 0 else None for i, n in enumerate(p.shape)))

    return put(mesh, params) if layout == "whole" else jax.tree.map(place, params)


def collectives(program):
    """How many of each kind a compiled program has."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", program.as_text()))


def compiled_both(model, arguments):
    """value_and_grad by hand and by autodiff."""
    ways = hg.value_and_grad(model, LOSS), jax.value_and_grad(hg.objective(model, LOSS))
    return [jax.jit(way).lower(*arguments).compile() for way in ways]


LAYOUTS = [("whole", "explicit", name) for name in MODELS]
LAYOUTS += [("whole", "auto", name) for name in MODELS]
LAYOUTS += [("fully", "explicit", "mlp"), ("fully", "explicit", "llama"), ("tensor", "explicit", "mlp")]


@pytest.mark.parametrize(("layout", "axes", "name"), [pytest.param(*row, marks=slow(row[-1])) for row in LAYOUTS])
def test_no_more_collectives_than_autodiff(layout, axes, name):
    mesh = mesh_of(axes, 4, 2)
    arguments = sharded(mesh, name, layout)
    with jax.set_mesh(mesh):
        ours, theirs = compiled_both(MODELS[name][0], arguments)
        found = ours(*arguments)
    close({"value_and_grad": found}, {"value_and_grad": on_one_device(name)["value_and_grad"]})
    assert collectives(ours) <= collectives(theirs)
    if axes == "explicit":
        assert jax.tree.map(jax.typeof, found[1]) == jax.tree.map(jax.typeof, arguments[0])


@each(("mlp", "convnet", "gpt2"))
def test_tensor_parallel_under_auto_axes(name):
    found = jax.jit(hg.value_and_grad(MODELS[name][0], LOSS))(*sharded(mesh_of("auto", 4, 2), name, "tensor"))
    close({"value_and_grad": found}, {"value_and_grad": on_one_device(name)["value_and_grad"]})


FOLDS = {
    "sq_norms": hg.sq_norms,
    "sq_norms of tokens": functools.partial(hg.sq_norms, unit="token"),
    "per_example_grads": hg.per_example_grads,
    "second_moment": hg.second_moment,
    "variance": hg.variance,
    "noise_scale": hg.noise_scale,
    "kfac_factors": hg.kfac_factors,
    "gram": hg.gram,
}


@pytest.mark.parametrize("axes", ["explicit", "auto"])
@each(("mlp", "convnet", "lstm"))
def test_folds(name, axes):
    """A fold over examples needs no communication; only `gram` all-gathers."""
    mesh, model = mesh_of(axes, 4), MODELS[name][0]
    folds = {key: fold for key, fold in FOLDS.items() if key != "sq_norms of tokens" or name == "mlp"}

    def run(params, x, target):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, target)
        return {key: fold(factors) for key, fold in folds.items()}

    def local(params, x, target):
        found = run(params, x, target)
        return [found[key] for key in ("sq_norms", "per_example_grads")]

    arguments = sharded(mesh, name)
    with jax.set_mesh(mesh):
        found = jax.jit(run)(*arguments)
        assert not collectives(jax.jit(local).lower(*arguments).compile())
    close(found, jax.jit(run)(*drawn(name)))


def test_groups_of_features_stay_apart_from_the_batch():
    """A grouped and a depthwise convolution: what autodiff gathers of the examples, and no more."""
    model = hg.chain(
        hg.convolution(8, 3, groups=2), hg.tanh(), hg.convolution(8, 3, groups=8), hg.flatten(), hg.linear(3)
    )
    mesh, x, target = mesh_of("auto", 4), jnp.asarray(RNG.standard_normal((BATCH, 6, 6, 4))), jnp.arange(BATCH) % 3
    arguments = put(mesh, normal_params(model, x)), put(mesh, x, "data"), put(mesh, target, "data")
    ours, theirs = compiled_both(model, arguments)
    found, expected = ({"value_and_grad": f(*arguments)} for f in (ours, theirs))
    close(found, expected)
    assert collectives(ours) <= collectives(theirs)
