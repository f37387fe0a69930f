"""Layouts: where parameters, optimizer state and batches are placed on a mesh of devices, on one host or several.

A layout only says where arrays are. The same training step then runs on the mesh, and XLA inserts the collectives:

    layout = fully_sharded(make_mesh())
    step = train_step(layout.gathered(model), loss, optimizer)
    state, batch = layout.place(state), layout.place_batch((x, target, weights))
    with jax.set_mesh(layout.mesh):
        state, value = jax.jit(step)(state, *batch)

What each layout communicates, and when to choose which: docs/scaling.md.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jaxtyping import Array, PyTree

from handgrad.backprop import Key
from handgrad.checks import InputError, path_name
from handgrad.layers import Layer
from handgrad.meshes import axis_names
from handgrad.training.state import TrainState

T = TypeVar("T")
Rules = Sequence[tuple[str, P]]

_ATTENTION = ((r"(.*\.)?(query|key|value)\.W", P(None, "model")), (r"(.*\.)?output\.W", P("model", None)))
GPT2_RULES: Rules = (
    *_ATTENTION,
    (r"(.*\.)?(query|key|value)\.b", P("model")),
    (r"(.*\.)?mlp\.up\.W", P(None, "model")),
    (r"(.*\.)?mlp\.up\.b", P("model")),
    (r"(.*\.)?mlp\.down\.W", P("model", None)),
    (r"(.*\.)?embedding\.table", P("model", None)),
)
"""Tensor parallelism of a GPT-2 (Shoeybi et al. 2019): what enters a branch is split by columns, what leaves it by
rows, so that each branch has one sum over devices; the vocabulary is split in the table."""
LLAMA_RULES: Rules = (
    *_ATTENTION,
    (r"(.*\.)?mlp\.mix\.(gate|up)\.W", P(None, "model")),
    (r"(.*\.)?mlp\.mix\.down\.W", P("model", None)),
    (r"(.*\.)?embedding\.table", P("model", None)),
    (r"(.*\.)?head\.W", P(None, "model")),
)
"""Tensor parallelism of a Llama, as of a GPT-2; the vocabulary is split in the table and in the head."""


@dataclass(frozen=True)
class Layout:
    """Where a training state and its batches are placed.

    Attributes:
      mesh: its axis "data" shards the batch.
      rules: (pattern, PartitionSpec): the first pattern that matches the whole path of a parameter, such as
        `body.blocks.attention.mix.query.W`, says how it is sharded; a parameter that none matches is replicated. The
        spec is of a parameter's last axes, so that one rule holds for a layer and for the layers stacked by `repeat`.
      fully_sharded: whether each parameter is also split over "data", along the largest axis that this divides and no
        rule has split (FSDP, ZeRO-3); one that has no such axis stays as it is.
    Raises:
      InputError: the mesh has no axis "data", or a rule names another that the mesh doesn't have.
    """

    mesh: Mesh
    rules: Rules = ()
    fully_sharded: bool = False

    def __post_init__(self) -> None:
        used = {"data": "the batch"} | {
            name: f"the rule {pattern!r}" for pattern, spec in self.rules for axis in spec for name in axis_names(axis)
        }
        for name, where in used.items():
            if name not in self.mesh.shape:
                raise InputError(f"Layout: {where} needs the mesh axis {name!r}, got a mesh of {self.mesh.axis_names}")

    def specs(self, params: PyTree) -> PyTree[P]:
        """Each parameter's PartitionSpec, from arrays or their shapes.

        Raises:
          InputError: a rule matches no parameter, or an axis that it splits isn't divisible.
        """
        paths = [(path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)]
        for pattern, _ in self.rules:
            if not any(re.fullmatch(pattern, name) for name, _ in paths):
                known = ", ".join(name for name, _ in paths)
                raise InputError(f"Layout: the rule {pattern!r} matches no parameter, of {known}")
        return jax.tree.unflatten(jax.tree.structure(params), [self._spec(name, leaf.shape) for name, leaf in paths])

    def shardings(self, state: TrainState) -> TrainState:
        """The sharding in each array's place, from arrays or their shapes.

        An array of the optimizer's state that has a parameter's path and shape (with or without axes in front) is
        sharded as this parameter; everything else is replicated. A state too large for one device is made in place:
        `jax.jit(make, out_shardings=layout.shardings(jax.eval_shape(make)))()`.
        """
        of_params = self.specs(state.params)
        specs = dict(jax.tree.leaves_with_path(of_params, is_leaf=lambda spec: isinstance(spec, P)))
        known = {path: (leaf.shape, specs[path]) for path, leaf in jax.tree.leaves_with_path(state.params)}

        def spec_of(path: jax.tree_util.KeyPath, leaf: Array) -> P:
            for start in range(len(path) + 1):  # a path may end in several parameters' paths: the longest is meant
                shape, spec = known.get(path[start:], (None, P()))
                if shape is not None and leaf.shape[len(leaf.shape) - len(shape) :] == shape:
                    return _aligned(spec, len(leaf.shape))
            return P()

        specs = jax.tree.map(lambda _: P(), state)._replace(
            params=of_params, opt_state=jax.tree.map_with_path(spec_of, state.opt_state)
        )
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))

    def place(self, state: TrainState) -> TrainState:
        """The state on the mesh; on several hosts, each of which has the whole state, it is the same on all.

        Raises:
          InputError: as `specs`.
        """
        return jax.tree.map(_put, state, self.shardings(state))

    def place_batch(self, batch: PyTree, *, part: bool = False) -> PyTree:
        """A batch on the mesh, such as (x, target, weights), the examples split over "data" and None left as it is.
        Inside jit, this is where the batch is put from there on.

        Args:
          part: on several hosts, False means that each of them has the whole batch; True that each has an equal part.
        Raises:
          InputError: the devices don't divide the examples.
        """
        sharding = NamedSharding(self.mesh, P("data"))

        def put(path: jax.tree_util.KeyPath, a: Array) -> Array:
            if not a.shape:
                raise InputError(f"Layout.place_batch: array {path_name(path)} of the batch has no axis of examples")
            self.check_batch("Layout.place_batch", f"examples in array {path_name(path)}", a.shape[0], part)
            if not isinstance(a, Tracer):
                if isinstance(a, jax.Array) and a.sharding.is_equivalent_to(sharding, a.ndim):
                    return a
                return jax.make_array_from_process_local_data(sharding, a, None if part else a.shape)
            explicit = AxisType.Explicit in self.mesh.axis_types
            return jax.sharding.reshard(a, sharding) if explicit else jax.lax.with_sharding_constraint(a, sharding)

        return jax.tree.map_with_path(put, batch)

    def gathered(self, model: Layer) -> Layer:
        """The model, with fully sharded parameters all-gathered along "data" before they are used.

        Under Explicit axes the functions of a model and a loss do so themselves. Under Auto axes the compiler might
        gather activations instead, many times as much (docs/scaling.md).
        """
        if not self.fully_sharded or AxisType.Explicit in self.mesh.axis_types:
            return model
        by_rules = Layout(self.mesh, self.rules)

        def forward(params: PyTree, x: PyTree, key: Key = None) -> tuple[PyTree, PyTree]:
            shardings = [NamedSharding(self.mesh, spec) for spec in jax.tree.leaves(by_rules.specs(params))]
            leaves, structure = jax.tree.flatten(params)
            whole = map(jax.lax.with_sharding_constraint, leaves, shardings)
            return model.forward(jax.tree.unflatten(structure, whole), x, key)

        return model._replace(forward=forward)

    def check_batch(self, where: str, name: str, examples: int, part: bool = False) -> None:
        """So many examples, of the whole batch or of a host's part, can be split over "data".

        Raises:
          InputError: they can't.
        """
        devices = (self.mesh.local_mesh if part else self.mesh).shape["data"]
        if examples % devices:
            wanted = f"a multiple of the {devices} devices along mesh axis 'data'"
            raise InputError(f"{where}: {name} must be {wanted}, got {examples}")

    def _spec(self, name: str, shape: tuple[int, ...]) -> P:
        """One parameter's PartitionSpec."""
        rule = next(((pattern, spec) for pattern, spec in self.rules if re.fullmatch(pattern, name)), None)
        if rule is not None and len(rule[1]) > len(shape):
            raise InputError(f"Layout: the rule {rule[0]!r} must have at most the {len(shape)} axes of {name} {shape}")
        spec = _aligned(P() if rule is None else rule[1], len(shape))
        for axis, names in enumerate(spec):
            devices = self._devices(names)
            if shape[axis] % devices:
                along = " and ".join(map(repr, axis_names(names)))
                wanted = f"a multiple of the {devices} devices along mesh axis {along}"
                raise InputError(f"Layout: axis {axis} of {name} {shape} must be {wanted}, got {shape[axis]}")
        if not self.fully_sharded or any("data" in axis_names(names) for names in spec):
            return spec
        free = [i for i, n in enumerate(shape) if spec[i] is None and n and n % self.mesh.shape["data"] == 0]
        largest = max(free, key=lambda i: shape[i], default=None)
        return P(*("data" if i == largest else names for i, names in enumerate(spec)))

    def _devices(self, names: str | tuple[str, ...] | None) -> int:
        """How many parts these mesh axes make."""
        parts = 1
        for name in axis_names(names):
            parts *= self.mesh.shape[name]
        return parts


def data_parallel(mesh: Mesh) -> Layout:
    """Every device has all parameters, and its part of the batch."""
    return Layout(mesh)


def fully_sharded(mesh: Mesh) -> Layout:
    """Every device has its part of the batch, and of each parameter and its optimizer state (FSDP, ZeRO-3)."""
    return Layout(mesh, fully_sharded=True)


def tensor_parallel(mesh: Mesh, rules: Rules = GPT2_RULES, *, fully_sharded: bool = False) -> Layout:
    """The matrices of each layer split over "model", the batch over "data", and with `fully_sharded` what `rules` leave
    of the parameters over "data" as well.

    The rules are GPT2_RULES, LLAMA_RULES, or those of another model. For query, key and value, "model" must divide the
    heads, else a head is split and its devices exchange activations.
    """
    return Layout(mesh, rules, fully_sharded)


def on_mesh(mesh: Mesh, steps: Iterator[T]) -> Iterator[T]:
    """What a generator yields that runs under this mesh; its caller runs under another."""
    while True:
        with jax.set_mesh(mesh):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def _put(a: Array, sharding: NamedSharding) -> Array:
    """jax.device_put, for typed random keys as well, which it can't put on several hosts."""
    if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return jax.device_put(a, sharding)
    return jax.random.wrap_key_data(jax.device_put(jax.random.key_data(a), sharding), impl=jax.random.key_impl(a))


def _aligned(spec: P, ndim: int) -> P:
    """The spec of an array's last axes as one of all its axes."""
    return P(*[None] * (ndim - len(spec)), *spec)
