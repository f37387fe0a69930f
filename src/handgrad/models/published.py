"""Published weights: where each of a model's parameters is in the state that its authors released.

A table, {path of our parameter: Weight}, is all that a model says (`GPT2_STATE`, `resnet_state(config)`). It is read in
both directions. docs/models.md shows them all.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError, describe, path_name

TRANSPOSED = (1, 0)  # weights, (n_out, n_in) there
KERNEL = (2, 3, 1, 0)  # of a convolution, (n_out, n_in, height, width) there

# What a model that holds the published one puts in front of its names: a head, data parallelism, torch.compile.
WRAPPERS = ("transformer.", "model.", "module.", "_orig_mod.")
SHOWN = 16  # names in a sentence; of more than these it says how many


class Weight(NamedTuple):
    """One parameter's place in a published state.

    Attributes:
      name: its array there; {block} stands for the number of a block, whose parameters lie stacked here.
      axes: which axis there is each of ours; None where they are the same.
      third: it is this third of the last axis there, 0, 1 or 2; None is the whole.
      added: another array there, which has to be added: two biases where one is enough. `to_state` writes 0 there.
      tied: the array that stands for it where the state has none of its name: two names of one tied matrix. An array
        of this name that is no other parameter's must be equal to it.
      image: (height, width, features) of what was made flat in front of a weight: our rows count them in this order,
        the published ones features first.
    """

    name: str
    axes: tuple[int, ...] | None = None
    third: int | None = None
    added: str | None = None
    tied: str | None = None
    image: tuple[int, int, int] | None = None


class StateTable(dict[str, Weight]):
    """A table {path: Weight}, and what a state of it may hold besides.

    Attributes:
      buffers: {name: what it is}: arrays that are no parameter's, and are left aside; {block} as in a Weight's name.
    """

    def __init__(self, weights: Mapping[str, Weight], buffers: Mapping[str, str] | None = None):
        super().__init__(weights)
        self.buffers = dict(buffers or {})


def from_state(table: Mapping[str, Weight], like: Any, state: Mapping[str, Any], *, strict: bool = True) -> Any:
    """A model's parameters from a published state.

    The state has to hold them all, and nothing else but the table's buffers (masks, frequencies). Names count without
    the prefixes of a model around the published one, "transformer." or "model.", on either side.

    Args:
      table: {path of a parameter: Weight}.
      like: the parameters, or their ShapeDtypeStructs: `jax.eval_shape(model.init, key, ids)`.
      state: {name: array}, of NumPy, JAX or PyTorch.
      strict: False leaves entries that no parameter takes aside, and parameters without an entry as they are in `like`.
    Returns:
      params like `like`, in its dtypes.
    Raises:
      InputError: parameters that the table doesn't have. In one sentence, with their names: parameters without an
        entry; entries that no parameter takes; entries of another shape, or not of floating-point numbers; several
        entries for one name; an entry that is tied to another and differs from it. With strict=False, parameters
        without an entry where `like` has only shapes, and the last three.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = {path_name(path): leaf for path, leaf in paths}
    _check_table("from_state", table, leaves)
    found = _check_state(table, leaves, state, strict)
    params = []
    for path, leaf in leaves.items():
        weight = table[path]
        blocks = [_parameter(weight, name, state, found, leaf.dtype) for name in _names(weight, leaf)]
        if _is_stack(weight):
            blocks = [leaf[i] if block is None else block for i, block in enumerate(blocks)]
            params.append(jnp.stack(blocks).astype(leaf.dtype))
        else:
            params.append(jnp.asarray(leaf) if blocks[0] is None else blocks[0].astype(leaf.dtype))
    return jax.tree.unflatten(structure, params)


def to_state(table: Mapping[str, Weight], params: Any) -> dict[str, np.ndarray]:
    """The published state of a model's parameters: {name: array}, with the table's names and no buffers.

    Raises:
      InputError: parameters that the table doesn't have.
    """
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    _check_table("to_state", table, leaves)
    state: dict[str, Any] = {}
    for path, leaf in leaves.items():
        weight = table[path]
        for name, block in zip(_names(weight, leaf), leaf if _is_stack(weight) else [leaf], strict=True):
            array = np.asarray(block)
            if weight.image:
                array = array.reshape(*weight.image, -1).transpose(2, 0, 1, 3).reshape(array.shape)
            array = array if weight.axes is None else array.transpose(np.argsort(weight.axes))
            if weight.third is None:
                state[name] = array
            else:
                state.setdefault(name, [None] * 3)[weight.third] = array
            if weight.added:
                state[weight.added] = np.zeros_like(array)
    return {name: np.concatenate(a, axis=-1) if isinstance(a, list) else a for name, a in state.items()}


def load(table: Mapping[str, Weight], like: Any, path: str | Path, *, strict: bool = True) -> Any:
    """`from_state` of safetensors files. Needs the extra `models`.

    Args:
      table, like, strict: as `from_state`.
      path: the file; the index of several, model.safetensors.index.json; or the folder that either lies in.
    Raises:
      InputError: as `from_state`; a file that can't be read; files that the index names and that aren't there, or
        don't hold what it says.
      FileNotFoundError: no such file.
    """
    return from_state(table, like, _read(Path(path)), strict=strict)


def save(table: Mapping[str, Weight], params: Any, path: str | Path) -> None:
    """`to_state` into a safetensors file. Needs the extra `models`."""
    from safetensors.flax import save_file

    save_file({name: jnp.asarray(array) for name, array in to_state(table, params).items()}, path)


def _bare(name: str) -> str:
    """A name without what a model around the published one put in front."""
    wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)
    return name if wrapper is None else _bare(name.removeprefix(wrapper))


def _is_stack(weight: Weight) -> bool:
    return "{block}" in weight.name


def _names(weight: Weight, leaf: Any) -> list[str]:
    """The published names of one parameter: of a stack one for each block."""
    return [weight.name.format(block=i) for i in range(leaf.shape[0])] if _is_stack(weight) else [weight.name]


def _find(
    table: Mapping[str, Weight], leaves: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, list[str]], list[str]]:
    """{published name: what it is called in this state}; and the names that are no parameter's and no buffer's."""
    weights = [table[path] for path in leaves]
    names = {name for path, leaf in leaves.items() for name in _names(table[path], leaf)}
    names |= {name for weight in weights for name in (weight.added, weight.tied) if name}
    bare = {_bare(name): name for name in names}
    blocks = max((leaf.shape[0] for path, leaf in leaves.items() if _is_stack(table[path])), default=1)
    buffers = {_bare(name.format(block=i)) for name in getattr(table, "buffers", ()) for i in range(blocks)}
    found: dict[str, list[str]] = {}
    besides = []
    for name in state:
        published = name if name in names else bare.get(_bare(name))
        if published is not None:
            found.setdefault(published, []).append(name)
        elif _bare(name) not in buffers:
            besides.append(name)
    return found, besides


def _check_table(where: str, table: Mapping[str, Weight], leaves: Iterable[str]) -> None:
    absent = [path for path in leaves if path not in table]
    if absent:
        raise InputError(f"{where}: the table must have every parameter, got none for {_listed(absent)}")


def _check_state(
    table: Mapping[str, Weight], leaves: Mapping[str, Any], state: Mapping[str, Any], strict: bool
) -> dict[str, list[str]]:
    """`_find`'s names, where nothing is wrong with the state; else all that is, in one sentence."""
    found, besides = _find(table, leaves, state)
    absent: dict[str, list[str]] = {}
    wrong: dict[str, str] = {}
    for path, leaf in leaves.items():
        weight = table[path]
        shape = _shape_there(weight, leaf.shape[1:] if _is_stack(weight) else leaf.shape)
        for name in [*_names(weight, leaf), *([weight.added] if weight.added else [])]:
            entry = name if name in found else weight.tied
            if entry in found:
                wrong |= _wrong(found[entry][0], state[found[entry][0]], shape)
            else:
                absent.setdefault(name, []).append(path)
        if weight.name in found and weight.tied in found and not _is_parameter(weight.tied, table, leaves):
            one, other = found[weight.name][0], found[weight.tied][0]
            wrong |= _wrong(other, state[other], shape)
            if not wrong.keys() & {one, other} and not _equal(state[one], state[other]):
                wrong[other] = f"{other} must be equal to {one}, which it is tied to"
    twice = [" and ".join(names) for names in found.values() if len(names) > 1]
    lost = any(isinstance(leaves[path], jax.ShapeDtypeStruct) for of in absent.values() for path in of)
    problems = []
    if absent and (strict or lost):
        of_paths = [f"{name} ({', '.join(paths)})" for name, paths in absent.items()]
        problems.append(f"no entry for {_listed(of_paths)}")
    if besides and strict:
        problems.append(f"{_counted(besides)} that no parameter takes, {_listed(besides)}")
    if wrong:
        problems.append(f"{_counted(wrong)} of another kind, {_listed(wrong.values())}")
    if twice:
        problems.append(f"two entries for one parameter, {_listed(twice)}")
    if problems:
        expected = "the state must hold the model's parameters and nothing else"
        hint = " (strict=False allows it)" if strict and not (lost or wrong or twice) else ""
        raise InputError(f"from_state: {expected}, got {'; '.join(problems)}{hint}")
    return found


def _wrong(name: str, array: Any, shape: tuple[int, ...]) -> dict[str, str]:
    """{name: why it can't be a parameter of this shape}; nothing, where it can."""
    if not (hasattr(array, "shape") and hasattr(array, "dtype")) or tuple(array.shape) != shape:
        return {name: f"{name} must have shape {shape}, got {describe(array)}"}
    if not _is_floating(array):
        return {name: f"{name} must have a floating-point dtype, got {describe(array)}"}
    return {}


def _is_parameter(name: str, table: Mapping[str, Weight], leaves: Iterable[str]) -> bool:
    """Whether the array of this name is a parameter of its own."""
    return any(table[path].name == name for path in leaves)


def _shape_there(weight: Weight, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The published shape of a parameter, or block of one, of this shape here."""
    if weight.axes is not None and len(shape) == len(weight.axes):
        shape = tuple(shape[axis] for axis in np.argsort(weight.axes))
    return shape if weight.third is None else (*shape[:-1], 3 * shape[-1])


def _parameter(weight: Weight, name: str, state: Mapping[str, Any], found: Any, dtype: Any) -> jax.Array | None:
    """The published array of this name as our parameter, or block of one; None where the state has none."""
    entry = name if name in found else weight.tied
    if entry not in found:
        return None
    array = _array(state[found[entry][0]])
    array = array if weight.axes is None else array.transpose(weight.axes)
    array = array if weight.third is None else jnp.split(array, 3, axis=-1)[weight.third]
    if weight.image:
        height, width, features = weight.image
        array = array.reshape(features, height, width, -1).transpose(1, 2, 0, 3).reshape(array.shape)
    if weight.added not in found:
        return array
    return array.astype(jnp.promote_types(array.dtype, dtype)) + _array(state[found[weight.added][0]])


def _array(value: Any) -> jax.Array:
    """`value` as a JAX array. PyTorch's is copied by DLPack, which knows bfloat16 too."""
    if hasattr(value, "detach"):
        return jnp.from_dlpack(value.detach().cpu().contiguous(), copy=True)
    return jnp.asarray(value)


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(_array(one), _array(other), equal_nan=True)


def _is_floating(array: Any) -> bool:
    of_torch = getattr(array, "is_floating_point", None)
    return bool(of_torch()) if of_torch else jnp.issubdtype(array.dtype, jnp.floating)


def _listed(names: Iterable[str]) -> str:
    """Names in a sentence; of many, some of every kind, numbers aside, and how many more there are."""
    names = list(names)
    seen: Counter[str] = Counter()
    if len(names) > SHOWN:
        turns = []
        for name in names:
            kind = re.sub(r"\d+", "", name)
            turns.append(seen[kind])
            seen[kind] += 1
        names = [name for _, name in sorted(zip(turns, names, strict=True), key=lambda pair: pair[0])]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _counted(entries: Any) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries)} entries"


def _read(path: Path) -> dict[str, Any]:
    """All entries of a safetensors file, of the files that an index names, or of the one of these in a folder."""
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
        raise InputError(f"load: the files that {path} names must lie beside it, got none of {_listed(absent)}")
    state: dict[str, Any] = {}
    for shard in shards:
        entries = _read_file(path.parent / shard)
        lost = [name for name, file in index.items() if file == shard and name not in entries]
        if lost:
            raise InputError(f"load: {shard} must hold what {path} says, got no {_listed(lost)}")
        twice = [name for name in entries if name in state]
        if twice:
            raise InputError(f"load: each entry must be in one file of {path}, got {_listed(twice)} in {shard} again")
        state |= entries
    return state


def _read_file(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"load: {path} can't be read: {error}") from None
