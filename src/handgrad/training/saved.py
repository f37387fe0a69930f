"""A state as checkpoints hold it: arrays by their paths, random keys as their bits, and a description to compare."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from handgrad.checks import describe, path_name

Named = dict[str, Any]


def named(state: PyTree) -> Named:
    """The leaves of a state by their paths: "params.0.W"."""
    leaves = ((path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(state))
    return {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in leaves}


def described(leaves: Named) -> dict[str, str]:
    """Their shapes and dtypes; a key's dtype names its implementation."""
    return {name: describe(leaf) for name, leaf in leaves.items()}


def difference(saved: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """What the first leaf is that a checkpoint and a state do not have in common; None where they are alike."""
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            return f"its {name} is {saved.get(name, 'missing')}, the state's {wanted.get(name, 'missing')}"
    return None


def arrays(leaves: Named) -> Named:
    """What orbax can write: no random keys, but their bits, and no empty arrays."""
    return {name: _bits(leaf) if _is_key(leaf) else leaf for name, leaf in leaves.items() if leaf.size}


def checksums(data: Named) -> dict[str, int | None]:
    """A sum over each array's bytes; None for an array that is split over several processes."""
    return {name: _sum(np.asarray(array)) if _is_here(array) else None for name, array in data.items()}


def check_whole(data: Named, expected: Mapping[str, int | None]) -> None:
    """Raise a ValueError for arrays of other bytes."""
    for name, found in checksums(data).items():
        if None not in (found, expected[name]) and found != expected[name]:
            raise ValueError(f"{name} has changed")


def sealed(about: dict[str, Any]) -> dict[str, Any]:
    """What is written as JSON, with a checksum of its own."""
    return {**about, "checksum": zlib.crc32(json.dumps(about, sort_keys=True).encode())}


def check_sealed(about: Mapping[str, Any]) -> None:
    """Raise a ValueError where it isn't what was written."""
    written = {name: value for name, value in about.items() if name != "checksum"}
    if sealed(written)["checksum"] != about["checksum"]:
        raise ValueError("its description has changed")


def restored(leaves: Named, data: Named) -> list[Array | np.ndarray]:
    """The leaves of a state of which `data` is what `arrays` made; empty ones are those of `leaves`."""
    return [_as(leaf, data[name]) if leaf.size else leaf for name, leaf in leaves.items()]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_here(array: Any) -> bool:
    return not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated


def _bits(key: Any) -> Any:
    return jax.random.key_data(key) if isinstance(key, jax.Array) else jax.eval_shape(jax.random.key_data, key)


def _sum(array: np.ndarray) -> int:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = data.size // 8 * 8
    return int(data[:whole].view(np.uint64).sum(dtype=np.uint64)) ^ int.from_bytes(data[whole:].tobytes(), "little")


def _as(leaf: Any, data: Any) -> Array | np.ndarray:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(data), impl=jax.random.key_impl(leaf))
    of_jax = isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not isinstance(data, jax.Array)
    return jnp.array(data) if of_jax else data  # a copy, which may be donated
