"""Training in every layout on eight devices is training on one; what can't be placed is refused before the work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from devices import laid_out
from devices.processes import free_port
from jax.sharding import AxisType, PartitionSpec as P

import handgrad as hg
from handgrad.checks import InputError
from handgrad.models import Gpt2Config, LlamaConfig
from handgrad.training import TrainState, connect, init_state, layouts, make_mesh

ROWS = (("0.W", P("model", None)),)


def mesh(data=4, model=2):
    return make_mesh(data, model)


@functools.cache
def on_one_device(name):
    state, values = laid_out.trained(name, laid_out.start(name), (*laid_out.MODELS[name][1:3], laid_out.WEIGHTS))
    return jax.device_get(state), values


@pytest.mark.parametrize("axes", ["explicit", "auto"])
@pytest.mark.parametrize("layout", laid_out.LAYOUTS)
@pytest.mark.parametrize(
    "name", ["mlp", pytest.param("gpt2", marks=pytest.mark.slow), pytest.param("llama", marks=pytest.mark.slow)]
)
def test_training_is_that_of_one_device(name, layout, axes):
    """Several steps of Adam, with an example of weight 0; every array stays where the layout has put it."""
    placed = laid_out.layout_of(name, layout, axes)
    batch = placed.place_batch((*laid_out.MODELS[name][1:3], laid_out.WEIGHTS))
    with jax.set_mesh(placed.mesh):
        state, values = laid_out.trained(name, placed.place(laid_out.start(name)), batch, placed)
    for array, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(placed.shardings(state)), strict=True):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    expected, expected_values = on_one_device(name)
    assert laid_out.off(state, expected) < 1e-12
    assert max(map(abs, np.subtract(values, expected_values))) < 1e-12


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=[pytest.mark.slow] * (name != "fully sharded")) for name in laid_out.LAYOUTS]
)
def test_fit_has_the_curve_of_one_device(layout):
    """Epochs whose last batch is padded; the caller is not on the mesh."""
    placed = laid_out.layout_of("mlp", layout, "explicit")
    state, curve = laid_out.fitted(placed)
    expected, expected_curve = laid_out.fitted(None)
    assert jax.sharding.get_abstract_mesh().empty
    assert len(curve) == laid_out.STEPS
    assert max(map(abs, np.subtract(curve, expected_curve))) < 1e-12
    assert laid_out.off(state, expected) < 1e-12
    assert state.params[0].W.sharding.is_equivalent_to(placed.shardings(state).params[0].W, 2)


def of_gpt2(layout):
    """A layout's specs of a GPT-2, by path."""
    model = hg.models.gpt2(Gpt2Config(16, tokens=8, width=8, blocks=2, heads=2))
    specs = layout.specs(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), int)))
    leaves = jax.tree.leaves_with_path(specs, is_leaf=lambda spec: isinstance(spec, P))
    return {hg.checks.path_name(path): spec for path, spec in leaves}


def test_specs():
    """Rules are of the last axes, behind those of `repeat`; the largest axis left goes to "data"."""
    specs = of_gpt2(layouts.tensor_parallel(mesh(), fully_sharded=True))
    assert specs["body.blocks.attention.mix.query.W"] == P(None, "data", "model")
    assert specs["body.blocks.attention.mix.output.W"] == P(None, "model", "data")
    assert specs["body.blocks.mlp.up.b"] == P(None, "model")
    assert specs["body.blocks.mlp.norm.gamma"] == P(None, "data")
    assert specs["embedding.table"] == P("model", "data")
    sharded = of_gpt2(layouts.fully_sharded(mesh(8, 1)))
    assert sharded["body.blocks.mlp.up.W"] == P(None, None, "data")
    assert sharded["body.blocks.mlp.down.W"] == P(None, "data", None)
    assert set(of_gpt2(layouts.data_parallel(mesh())).values()) <= {P(*[None] * ndim) for ndim in range(4)}


@pytest.mark.parametrize(
    ("optimizer", "path", "expected"),
    [
        (optax.adam(0.1), "0.mu.0.W", P("model", None)),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), "1.0.trace.0.W", P("model", None)),
        (optax.lbfgs(memory_size=3), "0.diff_params_memory.0.W", P(None, "model", None)),
        (optax.masked(optax.adam(0.1), ({"W": True, "b": False}, (), True)), "inner_state.0.nu.0.W", P("model", None)),
        (optax.adafactor(0.1, min_dim_size_to_factor=2), "0.v_row.0.W", P()),
    ],
)
def test_the_optimizers_state(optimizer, path, expected):
    """What has a parameter's path and shape is placed as this parameter; everything else is replicated."""
    params = ({"W": jnp.ones((4, 4)), "b": jnp.ones(4)}, (), {"W": jnp.ones((4, 4))})
    found = layouts.Layout(mesh(), ROWS).shardings(init_state(params, optimizer))
    leaves = {hg.checks.path_name(path): sharding.spec for path, sharding in jax.tree.leaves_with_path(found.opt_state)}
    assert leaves[path] == expected
    assert found.params[0]["b"].spec == P(None)
    assert found.step.spec == P()


def state_of(rows):
    return TrainState(({"W": jnp.ones((rows, 3))},), (), jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layouts.Layout(mesh(), ROWS).place(state_of(5)), r"axis 0 of 0\.W \(5, 3\) .* multiple of the 2"),
        (lambda: layouts.Layout(mesh(), (("1.W", P()),)).place(state_of(4)), r"rule '1\.W' matches no .*, of 0\.W"),
        (lambda: layouts.Layout(mesh(), (("0.W", P(None, "expert")),)), "rule '0.W' needs the mesh axis 'expert'"),
        (lambda: layouts.Layout(mesh(), (("0.W", P("model", None, None)),)).place(state_of(4)), "at most the 2 axes"),
        (lambda: layouts.Layout(jax.make_mesh((8,), ("x",))), "the batch needs the mesh axis 'data'"),
        (
            lambda: layouts.data_parallel(mesh()).place_batch((np.ones((6, 2)), None)),
            "in array 0 must .* of the 4 .*, got 6",
        ),
        (lambda: layouts.data_parallel(mesh()).place_batch((np.ones(()),)), "array 0 .* has no axis of examples"),
        (lambda: laid_out.fitted(layouts.data_parallel(mesh()), 6), "fit: batch_size must be .* 4 devices .*, got 6"),
        (lambda: make_mesh(16), "at most the 8 devices, got 16 × 1"),
        (lambda: make_mesh(model=3), "model must divide the 8 devices, got 3"),
        (lambda: make_mesh(axes="manual"), "axes must be 'explicit' or 'auto'"),
        (lambda: connect("nowhere", 1, 2), "coordinator must be 'host:port', got 'nowhere'"),
        (lambda: connect("127.0.0.1:1234", 2, 2), "process must be one of 0 … 1, got 2"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_a_coordinator_that_does_not_answer():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=rf"the coordinator at {address} didn't answer process 1 in 0\.3 s \("):
        connect(address, 1, 2, timeout=0.3)


def test_a_mesh_of_some_devices():
    found = make_mesh(2, 2, axes="auto")
    assert dict(found.shape) == {"data": 2, "model": 2}
    assert set(found.axis_types) == {AxisType.Auto}


def test_llama_rules():
    """Every rule of a Llama matches; what has no rule is replicated."""
    model = hg.models.llama(LlamaConfig(16, width=8, hidden=16, blocks=2, heads=2, kv_heads=2))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), int))
    specs = layouts.tensor_parallel(mesh(), layouts.LLAMA_RULES).specs(params)
    found = [specs["head"].W, specs["blocks"]["mlp"]["mix"].down.W, specs["norm"].gamma]
    assert found == [P(None, "model"), P(None, "model", None), P(None)]
