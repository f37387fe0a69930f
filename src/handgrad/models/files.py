"""Published states in safetensors files."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad.checks import InputError
from handgrad.extras import install
from handgrad.models.published import from_state, to_state
from handgrad.models.state_table import Weight, listed


def load(table: Mapping[str, Weight], like: PyTree, path: str | Path, *, strict: bool = True) -> PyTree[Array]:
    """`from_state` of safetensors files. Needs the extra `models`.

    Args:
      table, like, strict: as `from_state`.
      path: the file; the index of several, model.safetensors.index.json; or the folder of either.
    Raises:
      InputError: as `from_state`; a file that can't be read; files of the index that are missing or incomplete.
      FileNotFoundError: no such file.
    """
    return from_state(table, like, _read(Path(path)), strict=strict)


def save(table: Mapping[str, Weight], params: PyTree, path: str | Path) -> None:
    """`to_state` into a safetensors file. Needs the extra `models`."""
    _check_installed("save")
    from safetensors.flax import save_file

    save_file({name: jnp.asarray(array) for name, array in to_state(table, params).items()}, path)


def _read(path: Path) -> dict[str, Array]:
    """All entries of a safetensors file, of the files of an index, or of either in a folder."""
    if path.is_dir():
        places = [path / "model.safetensors", path / "model.safetensors.index.json"]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise InputError(f"load: {path} must hold model.safetensors or model.safetensors.index.json, got neither")
        return _read(file)
    if path.suffix != ".json":
        return _read_file(path)
    try:
        index = dict(json.loads(path.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"load: {path} must be an index with a weight_map, got {error!r}") from None
    shards = sorted(set(index.values()))
    absent = [shard for shard in shards if not (path.parent / shard).is_file()]
    if absent:
        raise InputError(f"load: the files that {path} names must lie beside it, got none of {listed(absent)}")
    state: dict[str, Array] = {}
    for shard in shards:
        entries = _read_file(path.parent / shard)
        lost = [name for name, file in index.items() if file == shard and name not in entries]
        if lost:
            raise InputError(f"load: {shard} must hold what {path} says, got no {listed(lost)}")
        twice = [name for name in entries if name in state]
        if twice:
            raise InputError(f"load: each entry must be in one file of {path}, got {listed(twice)} in {shard} again")
        state |= entries
    return state


def _read_file(path: Path) -> dict[str, Array]:
    _check_installed("load")
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"load: {path} can't be read: {error}") from None


def _check_installed(where: str) -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise InputError(f"{where}: needs safetensors: {install('models')}")
