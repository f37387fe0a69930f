"""Whole models with the batch on four devices, and some parameters on two: the numbers of one device, and nothing that
belongs to the whole batch ever gathered."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from devices.on_devices import gathered_bytes, mesh_of, put
from jax.sharding import PartitionSpec

import handgrad as hg
from handgrad.models import Gpt2Config, LlamaConfig, LstmLanguageModelConfig
from handgrad.training import init_state, two_phase_step

RNG = np.random.default_rng(0)
BATCH = 8
IDS, LABELS = (RNG.integers(0, 7, (BATCH, 6)) for _ in range(2))
LOSS = hg.softmax_cross_entropy()
OPTIMIZER = optax.adam(0.01)
MODELS = {
    "mlp": (hg.mlp((6, 8, 4), hg.tanh()), RNG.standard_normal((BATCH, 6)), RNG.integers(0, 4, BATCH)),
    "convnet": (
        hg.chain(hg.convolution(4, 3), hg.layer_norm(), hg.relu(), hg.max_pool(2), hg.flatten(), hg.linear(4)),
        RNG.standard_normal((BATCH, 8, 8, 2)),
        RNG.integers(0, 4, BATCH),
    ),
    "lstm": (hg.lstm_language_model(LstmLanguageModelConfig(7, width=4, layers=2)), IDS, LABELS),
    "gpt2": (hg.gpt2(Gpt2Config(vocabulary=7, tokens=6, width=4, blocks=2, heads=2)), IDS, LABELS),
    "llama": (
        hg.llama(LlamaConfig(vocabulary=7, width=4, hidden=6, blocks=2, heads=2, kv_heads=1, rotary_base=10.0)),
        IDS,
        LABELS,
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def drawn(name):
    model, x, target = MODELS[name]
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape) / 2), like)
    return params, jnp.asarray(x), jnp.asarray(target)


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


def close(found, expected):
    """Of each quantity, within 1e-12 of its largest number: a gradient that is 0 is 0 to the others' rounding."""
    for name in expected:
        one, two = (
            np.concatenate([np.ravel(a) for a in jax.tree.leaves(jax.device_get(tree[name]))])
            for tree in (found, expected)
        )
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12 * np.abs(two).max(), err_msg=name)


@every_model
@pytest.mark.parametrize("axes", ["explicit", "auto"])
def test_a_sharded_batch(name, axes):
    mesh = mesh_of(axes, 4)
    params, x, target = drawn(name)
    arguments = put(mesh, params), put(mesh, x, "data"), put(mesh, target, "data")
    with jax.set_mesh(mesh):
        program = jax.jit(of_model(name)).lower(*arguments).compile()
        close(program(*arguments), on_one_device(name))
    assert gathered_bytes(program.as_text()) < x.nbytes


@every_model
def test_inside_shard_map(name):
    """Local gradients, which the caller averages; and a function whose replicated parameters' cotangents JAX sums."""
    model = MODELS[name][0]
    mesh = mesh_of("auto", 4)
    batch, whole = PartitionSpec("data"), PartitionSpec()
    f = hg.custom_vjp(model)

    def local(params, x, target):
        mean = functools.partial(jax.lax.pmean, axis_name="data")
        total = functools.partial(jax.lax.psum, axis_name="data")
        norms = hg.sq_norms(hg.value_and_factors(model, LOSS)(params, x, target)[1])
        return (
            jax.tree.map(mean, hg.value_and_grad(model, LOSS)(params, x, target)),
            norms,
            jax.tree.map(total, hg.clipped_grad(model, LOSS, l2_clip_norm=0.1)(params, x, target)),
        )

    def objective(params, x, target):
        losses, _ = LOSS.forward(f(params, x), target)
        return jax.lax.pmean(jnp.mean(losses), "data")

    over = functools.partial(jax.shard_map, mesh=mesh, in_specs=(whole, batch, batch))

    @jax.jit
    def run(params, x, target):
        grads, norms, clipped = over(local, out_specs=(whole, batch, whole))(params, x, target)
        by_custom_vjp = jax.grad(over(objective, out_specs=whole))(params, x, target)
        return {"value_and_grad": grads, "sq_norms": norms, "clipped_grad": clipped, "custom_vjp": by_custom_vjp}

    expected = {key: on_one_device(name)[key] for key in ("value_and_grad", "sq_norms", "clipped_grad", "custom_vjp")}
    close(run(*drawn(name)), expected)


def split_over(mesh, params, layout):
    """Parameters whole, or each with the last (tensor parallel) or the first (fully sharded) axis that can be split."""

    def place(p):
        axis, over = (p.ndim - 1, "model") if layout == "tensor" else (0, "data")
        names = [over if i == axis and p.shape[i] % mesh.shape[over] == 0 else None for i in range(p.ndim)]
        return put(mesh, p, *names)

    return put(mesh, params) if layout == "whole" else jax.tree.map(place, params)


def collectives(text):
    return sorted(
        re.findall(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text)
    )


@every_model
@pytest.mark.parametrize("layout", ["whole", "tensor", "fully"])
@pytest.mark.parametrize("axes", ["explicit", "auto"])
def test_collectives_are_those_of_autodiff(name, layout, axes):
    mesh = mesh_of(axes, 4, 2)
    model = MODELS[name][0]
    params, x, target = drawn(name)
    arguments = split_over(mesh, params, layout), put(mesh, x, "data"), put(mesh, target, "data")
    with jax.set_mesh(mesh):
        try:
            theirs = jax.jit(jax.value_and_grad(hg.objective(model, LOSS))).lower(*arguments).compile()
        except Exception as e:
            pytest.skip(f"AUTODIFF {type(e)} {str(e)[:200]}")
        ours = jax.jit(hg.value_and_grad(model, LOSS)).lower(*arguments).compile()
        (value, grads) = ours(*arguments)
    close({"g": (value, grads)}, {"g": on_one_device(name)["value_and_grad"]})
    shardings = [
        a.sharding.is_equivalent_to(b.sharding, a.ndim)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(arguments[0]))
    ]
    print(collectives(ours.as_text()), collectives(theirs.as_text()), shardings)
