"""What does each layout communicate in a training step, and how long would that take on real links?

A step of a GPT-2 is compiled, on shapes alone, for meshes of simulated devices; its collectives are counted in the
compiled program, loops as often as they run, and set beside the formula. Two kinds of links turn them into times.

    python experiments/scaling.py --out runs/scaling.json
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study
from collectives import Collective, collectives
from jax.sharding import NamedSharding, PartitionSpec

import handgrad as hg
from handgrad.checks import InputError, check_positive
from handgrad.models import Gpt2Config
from handgrad.training import Layout, data_parallel, fully_sharded, init_state, make_mesh, tensor_parallel, train_step

HOST = 8  # devices of one host
HEAD = ("layout", "axes", "devices")
MODEL = {"data": 1, "fully sharded": 1, "tensor": None, "tensor, fully sharded": None}  # None: options.model


Axes = Literal["explicit", "auto", "compiler"]


class Link(NamedTuple):
    """Seconds before a message's first byte, and bytes a second of each device in each direction, on one network."""

    alpha: float
    beta: float


# name: links inside a host, and between hosts. Figures of data sheets: NVLink 4 has 450 GB/s in each direction,
# InfiniBand NDR 400 Gb/s for each device; PCIe 4 has 32 GB/s, and the devices of a host share 25 Gb/s Ethernet.
LINKS = {
    "NVLink 4, InfiniBand NDR": (Link(2e-6, 450e9), Link(5e-6, 50e9)),
    "PCIe 4, 25 Gb/s Ethernet": (Link(5e-6, 32e9), Link(30e-6, 25e9 / 8 / HOST)),
}


@dataclass(frozen=True)
class Options:
    """The collectives of each layout, their bytes, and their time by a model of the links."""

    devices: tuple[int, ...] = (8, 64, 256)
    """How many simulated devices."""
    axes: tuple[Axes, ...] = ("explicit", "auto", "compiler")
    """Axis types of the mesh; "compiler" is Auto axes without `Layout.gathered`, for what is fully sharded."""
    model: int = 4
    """Devices that share each layer in the tensor layouts; a divisor of heads and vocabulary."""
    batch: int = 8
    """Sequences for each device."""
    tokens: int = 1024
    """Tokens of a sequence."""
    width: int = 768
    """Features of a token."""
    blocks: int = 12
    """Blocks."""
    heads: int = 12
    """Attention heads."""
    vocabulary: int = 50304
    """GPT-2's 50,257 tokens, filled up to a multiple of 128."""
    rate: float = 4e14
    """Floating-point operations a second of one device, for the time of the arithmetic."""
    out: Path = Path("runs/scaling.json")
    """Where the figures go."""


def seconds(one: Collective, inner: Link, outer: Link) -> float:
    """Rings, first among the n members of a group on one host, then, each with its share, among h hosts: a pass takes
    (n − 1)(α + bytes / n β) + (h − 1)(α + bytes / n h β), and an all-reduce has two passes."""
    hosts = len({device // HOST for device in one.group})
    n = len(one.group) // hosts
    inside = (n - 1) * (inner.alpha + one.bytes / n / inner.beta)
    between = (hosts - 1) * (outer.alpha + one.bytes / n / hosts / outer.beta)
    return one.times * (2 if one.kind == "all-reduce" else 1) * (inside + between)


def layout_of(name: str, devices: int, axes: Axes, options: Options) -> Layout:
    """A layout by name."""
    model = MODEL[name] or options.model
    mesh = make_mesh(devices // model, model, axes="explicit" if axes == "explicit" else "auto")
    if name.startswith("tensor"):
        return tensor_parallel(mesh, fully_sharded=name.endswith("fully sharded"))
    return fully_sharded(mesh) if name == "fully sharded" else data_parallel(mesh)


def formula(layout: Layout, params: Any, options: Options) -> list[Collective]:
    """A step's collectives on paper."""
    data, model = layout.mesh.shape["data"], layout.mesh.shape["model"]
    by_rules = Layout(layout.mesh, layout.rules).shardings(init_state(params, optax.identity())).params
    gradients = sum(map(_bytes_of_one_device, jax.tree.leaves(params), jax.tree.leaves(by_rules)))
    of_data, of_model = tuple(range(0, data * model, model)), tuple(range(model))
    kinds = ("all-gather", "reduce-scatter") if layout.fully_sharded else ("all-reduce",)
    found = [Collective(kind, of_data, gradients, 1) for kind in kinds if data > 1]
    if model > 1:  # in a block two sums forward and two backward; the table's rows and the head's dX; three of the loss
        numbers = options.batch * model * options.tokens * np.dtype(jax.tree.leaves(params)[0].dtype).itemsize
        found.append(Collective("all-reduce", of_model, numbers * options.width, 4 * options.blocks + 2))
        found.append(Collective("all-reduce", of_model, numbers, 3))
    return found


def measure(name: str, devices: int, axes: Axes, options: Options) -> dict[str, Any]:
    """One layout's collectives in the compiled step, beside the formula, and times."""
    layout = layout_of(name, devices, axes, options)
    config = Gpt2Config(options.vocabulary, options.tokens, options.width, options.blocks, options.heads)
    model, optimizer = hg.models.gpt2(config), optax.adam(1e-3)
    ids = jax.ShapeDtypeStruct((options.batch * devices, options.tokens), jnp.int32)
    state = jax.eval_shape(lambda: init_state(model.init(jax.random.key(0), ids), optimizer))
    shardings = layout.shardings(state)
    placed = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)
    ids = jax.ShapeDtypeStruct(ids.shape, ids.dtype, sharding=NamedSharding(layout.mesh, PartitionSpec("data", None)))
    model = model if axes == "compiler" else layout.gathered(model)
    step = train_step(model, hg.softmax_cross_entropy(), optimizer)
    with jax.set_mesh(layout.mesh):
        program = jax.jit(step, donate_argnums=0).lower(placed, ids, ids).compile()
    found = list(collectives(program.as_text() or "", devices))
    on_paper = formula(layout, state.params, options)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return {
        "layout": name,
        "axes": axes,
        "devices": devices,
        "mesh": dict(layout.mesh.shape),
        "collectives": _by_kind(found, layout),
        "formula": _by_kind(on_paper, layout),
        "ms": {link: 1e3 * sum(seconds(one, *of) for one in found) for link, of in LINKS.items()},
        "formula_ms": {link: 1e3 * sum(seconds(one, *of) for one in on_paper) for link, of in LINKS.items()},
        "arithmetic_ms": 1e3 * 6 * parameters * options.batch * options.tokens / options.rate,
        "state_bytes": sum(map(_bytes_of_one_device, jax.tree.leaves(state), jax.tree.leaves(shardings))),
        "temp_bytes": study.temp_bytes(program),
    }


def _by_kind(found: list[Collective], layout: Layout) -> dict[str, dict[str, int]]:
    """How many collectives of each kind along each mesh axis, and their bytes."""
    model = layout.mesh.shape["model"]
    kinds: dict[str, dict[str, int]] = {}
    for one in found:
        inside = model > 1 and max(one.group) < model
        axis = "model" if inside else "data" if all(device % model == 0 for device in one.group) else "both"
        of_kind = kinds.setdefault(f"{one.kind}, {axis}", {"times": 0, "bytes": 0})
        of_kind["times"] += one.times
        of_kind["bytes"] += one.times * one.bytes
    return dict(sorted(kinds.items()))


def _bytes_of_one_device(a: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    """The bytes of an array that each device has."""
    return math.prod(sharding.shard_shape(a.shape)) * np.dtype(a.dtype).itemsize


def simulate(devices: int) -> None:
    """So many devices of this machine's CPU, unless JAX has begun to use those that it has.

    Raises:
      InputError: it has, and they are fewer.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        if jax.device_count() < devices:
            raise InputError(
                f"scaling: devices must be at most the {jax.device_count()} in use, got {devices}"
            ) from None


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return them."""
    study.begin("scaling", options, "devices", "model", "batch", "tokens", "width", "blocks", "heads", "vocabulary")
    check_positive("scaling", "rate", options.rate)
    for name, count in [("heads", options.heads), *(("devices", n) for n in options.devices)]:
        if count % options.model:
            raise InputError(f"scaling: {name} must be a multiple of model, {options.model}, got {count}")
    simulate(max(options.devices))
    table = study.table("collectives of a step", *HEAD, "collective", "times", "MB", "on paper", "MB")
    on_paper = (f"{link}, on paper" for link in LINKS)
    times = study.table("time of communication, ms", *HEAD, *LINKS, *on_paper, "state, MB")
    rows = []
    for devices, name, axes in itertools.product(options.devices, MODEL, options.axes):
        if axes == "compiler" and "fully sharded" not in name:
            continue
        row = measure(name, devices, axes, options)
        rows.append(row)
        head = (name, axes, str(devices))
        for kind in sorted({*row["collectives"], *row["formula"]}):
            both = [row[key].get(kind, {"times": 0, "bytes": 0}) for key in ("collectives", "formula")]
            table.add_row(*head, kind, *(f"{n:.4g}" for of in both for n in (of["times"], of["bytes"] / 1e6)))
        spent = (f"{row[key][link]:.1f}" for key in ("ms", "formula_ms") for link in LINKS)
        times.add_row(*head, *spent, f"{row['state_bytes'] / 1e6:.0f}")
    study.publish(options.out, options, table, times, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
