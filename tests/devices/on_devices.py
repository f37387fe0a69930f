"""A batch on several of the eight simulated devices: placing arguments, and collecting what comes back."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


@functools.cache
def mesh_of(axes: str, *sizes: int) -> Mesh:
    """The first devices as a mesh with the axes "data" and "model"."""
    devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
    return Mesh(devices, ("data", "model")[: len(sizes)], axis_types=(AXES[axes],) * len(sizes))


def put(mesh: Mesh, value: Any, *names: Any) -> Any:
    """Every array of a pytree on the mesh, its leading axes sharded over these mesh axes."""

    def place(a: Any) -> jax.Array:
        return jax.device_put(a, NamedSharding(mesh, PartitionSpec(*names)))

    return jax.tree.map(place, value)


def gathered_bytes(text: str) -> int:
    """Bytes of the results of all-gathers in a compiled program."""
    import re

    sizes = {
        "f64": 8,
        "f32": 4,
        "s32": 4,
        "s64": 8,
        "u32": 4,
        "pred": 1,
        "bf16": 2,
        "f16": 2,
        "u8": 1,
        "s8": 1,
        "u64": 8,
    }
    total = 0
    for line in text.splitlines():
        if " all-gather" not in line or "all-gather-done" in line:
            continue
        result = line.split(" all-gather")[0].split("=", 1)[1]
        for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", result):
            total += sizes[kind] * int(np.prod([int(n) for n in dims.split(",") if n]))
    return total
