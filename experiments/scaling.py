"""What does each layout communicate in a training step, and how long would that take on real links?

A step of a GPT-2 is compiled, on shapes alone, for meshes of simulated devices; its collectives are counted in the
compiled program, loops as often as they run, and set beside the formula. Two kinds of links turn them into times.

    python experiments/scaling.py --out runs/scaling.json
"""

import math
from collections import defaultdict
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
    axes: tuple[Literal["explicit", "auto"], ...] = ("explicit", "auto")
    """Axis types of the mesh."""
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


def layout_of(name: str, devices: int, axes: Literal["explicit", "auto"], options: Options) -> Layout:
    """A layout by name."""
    model = MODEL[name] or options.model
    mesh = make_mesh(devices // model, model, axes=axes)
    if name.startswith("tensor"):
        return tensor_parallel(mesh, fully_sharded=name.endswith("fully sharded"))
    return fully_sharded(mesh) if name == "fully sharded" else data_parallel(mesh)


def formula(layout: Layout, params: Any, options: Options) -> dict[str, int]:
    """Bytes of each kind of collective along each mesh axis, on paper."""
    data, model = layout.mesh.shape["data"], layout.mesh.shape["model"]
    by_rules = Layout(layout.mesh, layout.rules).shardings(init_state(params, optax.identity())).params
    gradients = sum(map(_bytes_of_one_device, jax.tree.leaves(params), jax.tree.leaves(by_rules)))
    found = dict[str, int]()
    if model > 1:
        tokens = options.batch * model * options.tokens * 4
        # In each block two sums forward and two backward; the table's rows, and the head's dX; the loss: three numbers.
        found["all-reduce, model"] = tokens * ((4 * options.blocks + 2) * options.width + 3)
    if data > 1 and layout.fully_sharded:
        found |= {"all-gather, data": gradients, "reduce-scatter, data": gradients}
    elif data > 1:
        found["all-reduce, data"] = gradients
    return found


def measure(name: str, devices: int, axes: Literal["explicit", "auto"], options: Options) -> dict[str, Any]:
    """One layout's collectives in the compiled step, beside the formula, and times."""
    layout = layout_of(name, devices, axes, options)
    config = Gpt2Config(options.vocabulary, options.tokens, options.width, options.blocks, options.heads)
    model, optimizer = hg.models.gpt2(config), optax.adam(1e-3)
    ids = jax.ShapeDtypeStruct((options.batch * devices, options.tokens), jnp.int32)
    state = jax.eval_shape(lambda: init_state(model.init(jax.random.key(0), ids), optimizer))
    shardings = layout.shardings(state)
    placed = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)
    ids = jax.ShapeDtypeStruct(ids.shape, ids.dtype, sharding=NamedSharding(layout.mesh, PartitionSpec("data", None)))
    step = train_step(model, hg.softmax_cross_entropy(), optimizer)
    with jax.set_mesh(layout.mesh):
        program = jax.jit(step, donate_argnums=0).lower(placed, ids, ids).compile()
    found = list(collectives(program.as_text() or "", devices))
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for one in found:
        of_kind = kinds[f"{one.kind}, {_axis(one.group, layout.mesh.shape['model'])}"]
        of_kind["count"] += one.times
        of_kind["bytes"] += one.times * one.bytes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return {
        "layout": name,
        "axes": axes,
        "devices": devices,
        "mesh": dict(layout.mesh.shape),
        "collectives": dict(sorted(kinds.items())),
        "formula": formula(layout, state.params, options),
        "ms": {link: 1e3 * sum(seconds(one, *of) for one in found) for link, of in LINKS.items()},
        "arithmetic_ms": 1e3 * 6 * parameters * options.batch * options.tokens / options.rate,
        "state_bytes": sum(map(_bytes_of_one_device, jax.tree.leaves(state), jax.tree.leaves(shardings))),
        "temp_bytes": study.temp_bytes(program),
    }


def _axis(group: tuple[int, ...], model: int) -> str:
    """The mesh axis along which a group lies."""
    inside = all(device < model for device in group)
    return "model" if inside and model > 1 else "data" if all(d % model == group[0] % model for d in group) else "both"


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
    table = study.table(
        "collectives of a step", "layout", "axes", "devices", "collective", "times", "MB", "formula, MB"
    )
    times = study.table("time, ms", *HEAD, *LINKS, "arithmetic", "state, MB")
    rows = []
    for devices in options.devices:
        for name in MODEL:
            for axes in options.axes:
                row = measure(name, devices, axes, options)
                rows.append(row)
                head = (name, axes, str(devices))
                for kind in sorted({*row["collectives"], *row["formula"]}):
                    found = row["collectives"].get(kind, {"count": 0, "bytes": 0})
                    cells = (f"{found['count']}", f"{found['bytes'] / 1e6:.1f}")
                    table.add_row(*head, kind, *cells, f"{row['formula'].get(kind, 0) / 1e6:.1f}")
                spent = (f"{row['ms'][link]:.1f}" for link in LINKS)
                times.add_row(*head, *spent, f"{row['arithmetic_ms']:.1f}", f"{row['state_bytes'] / 1e6:.0f}")
    study.publish(options.out, options, table, times, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
