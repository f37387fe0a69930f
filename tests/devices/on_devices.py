"""A batch on several of the eight simulated devices: placing arguments, and collecting what comes back."""

import functools
import re
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

    return jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*names))), value)


def close(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    """Of each quantity, within rtol of its largest number: a gradient that is 0 is 0 to the others' rounding."""
    assert found.keys() == expected.keys()
    for name in expected:
        one, two = (
            np.concatenate([np.ravel(a) for a in jax.tree.leaves(jax.device_get(tree[name]))])
            for tree in (found, expected)
        )
        np.testing.assert_allclose(one, two, rtol=0, atol=rtol * np.abs(two).max(), err_msg=name)


def gathered_bytes(text: str) -> int:
    """Bytes of the results of all-gathers in a compiled program."""
    sizes = {
        "f64": 8,
        "s64": 8,
        "u64": 8,
        "f32": 4,
        "s32": 4,
        "u32": 4,
        "bf16": 2,
        "f16": 2,
        "u8": 1,
        "s8": 1,
        "pred": 1,
    }
    total = 0
    for result in re.findall(r"=(.*?) all-gather(?!-done)", text):
        for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", result):
            total += sizes[kind] * int(np.prod([int(n) for n in dims.split(",") if n]))
    return total
