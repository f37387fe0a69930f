"""Every layer and loss with one example on each of five devices is the layer on one device."""

import functools

import jax
import jax.numpy as jnp
import pytest
from coupling_rows import TABLE
from devices.on_devices import close, mesh_of, put
from helpers import drawn as drawn_params
from jax.sharding import PartitionSpec

import handgrad as hg

KEY = jax.random.key(0)


def cotangent(y):
    """Numbers that differ from example to example, for every output of floating point."""
    return jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype).reshape(a.shape)), y)


@functools.cache
def drawn():
    """Parameters none of which is 0 or 1, inputs, and a cotangent for each output: all that a batch brings."""
    found = {}
    for name, (what, *inputs) in TABLE.items():
        inputs = jax.tree.map(jnp.asarray, tuple(inputs))
        if isinstance(what, hg.Loss):
            found[name] = (), inputs, cotangent(jax.eval_shape(what.forward, *inputs)[0])
        else:
            params = jax.tree.map(lambda p: 1 + 0.3 * p, drawn_params(what, *inputs))
            found[name] = params, *inputs, cotangent(jax.eval_shape(what.forward, params, *inputs, KEY)[0])
    return found


def by_example(mesh, tree):
    """Sharded over the five examples; what a Projection carries is no example's."""
    return jax.tree.map(lambda a: put(mesh, a, *(["data"] if a.shape[:1] == (5,) else [])), tree)


def run(arguments, names):
    """Outputs, cotangents and gradients of these layers and losses, in one program."""
    found = {}
    for name in names:
        params, x, dy = arguments[name]
        what = TABLE[name][0]
        if isinstance(what, hg.Loss):
            y, residuals = what.forward(*x)
            found[name] = y, what.backward(residuals, dy)
        else:
            y, residuals = what.forward(params, x, KEY)
            dx, dparams = what.backward(residuals, dy)
            found[name] = y, dx, hg.materialize(dparams)
    return found


@pytest.mark.slow
def test_explicit_axes():
    arguments, mesh = drawn(), mesh_of("explicit", 5)
    placed = {
        name: (put(mesh, params), by_example(mesh, x), by_example(mesh, dy))
        for name, (params, x, dy) in arguments.items()
    }
    with jax.set_mesh(mesh):
        found = jax.jit(functools.partial(run, names=TABLE))(placed)
    close(found, jax.jit(functools.partial(run, names=TABLE))(arguments))


@pytest.mark.slow
def test_inside_shard_map():
    """All but those that see the whole batch, which is each device's own there, whose noise or mask is of the batch's
    shape, and whose input or output carries parameters."""
    of_batch, parameters = {"dropout", "gumbel_softmax", "told"}, {"projection", "tied_projection", "crf", "crf_loss"}
    left_out = {*of_batch, *parameters, "linear_cross_entropy", "linear_log_probability"}
    names = [name for name, (what, *_) in TABLE.items() if what.couples is None and name not in left_out]
    arguments, mesh = {name: drawn()[name] for name in names}, mesh_of("auto", 5)
    whole, by_batch = PartitionSpec(), PartitionSpec("data")

    def local(params, batch):
        found = run({name: (params[name], *batch[name]) for name in names}, names)
        gradients = {name: of_one[2:] for name, of_one in found.items()}
        return {name: of_one[:2] for name, of_one in found.items()}, jax.lax.psum(gradients, "data")

    over = jax.shard_map(local, mesh=mesh, in_specs=(whole, by_batch), out_specs=(by_batch, whole))
    params, batch = ({name: of_one[part] for name, of_one in arguments.items()} for part in (0, slice(1, None)))
    of_examples, gradients = jax.jit(over)(params, batch)
    expected = jax.jit(functools.partial(run, names=names))(arguments)
    close({name: (*of_examples[name], *gradients[name]) for name in names}, expected)
