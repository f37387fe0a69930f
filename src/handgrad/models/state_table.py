"""The table of a published state: each parameter's place, and what is wrong with a state that doesn't fit it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.checks import InputError, describe, is_array

TRANSPOSED = (1, 0)  # weights, (n_out, n_in) there
KERNEL = (2, 3, 1, 0)  # of a convolution, (n_out, n_in, height, width) there

# Prefixes of models that hold the published one: with a head, data parallelism, torch.compile.
WRAPPERS = ("transformer.", "model.", "module.", "_orig_mod.")
Leaf = Array | jax.ShapeDtypeStruct

SHOWN = 16  # names in a sentence; the rest are counted


class Weight(NamedTuple):
    """One parameter's place in a published state.

    Attributes:
      name: its array there; {block} is the number of a block, whose parameters are stacked here.
      axes: the permutation from the axes there to ours; None where they are the same.
      third: 0, 1 or 2 for a third of the last axis there; None for the whole.
      added: another array there, which is added: two biases where one is enough. `to_state` writes 0 there.
      tied: the array to read where the state has none of this name: two names of one tied matrix. An array of this
        name that is no other parameter's must be equal to it.
      image: (height, width, features) of the image that was flattened before a weight: our rows are in this order, the
        published ones features first.
    """

    name: str
    axes: tuple[int, ...] | None = None
    third: int | None = None
    added: str | None = None
    tied: str | None = None
    image: tuple[int, int, int] | None = None


class StateTable(dict[str, Weight]):
    """A table {path: Weight}, and what else a state may hold.

    Attributes:
      buffers: {name: what it is}: arrays that are no parameters and are ignored; {block} as in a Weight's name.
    """

    def __init__(self, weights: Mapping[str, Weight], buffers: Mapping[str, str] | None = None):
        super().__init__(weights)
        self.buffers = dict(buffers or {})


def is_stack(weight: Weight) -> bool:
    """Whether the parameter is stacked over blocks."""
    return "{block}" in weight.name


def names_of(weight: Weight, leaf: Leaf) -> list[str]:
    """The published names of one parameter: one for each block of a stack."""
    return [weight.name.format(block=i) for i in range(leaf.shape[0])] if is_stack(weight) else [weight.name]


def _find(
    table: Mapping[str, Weight], leaves: Mapping[str, Leaf], state: Mapping[str, Any]
) -> tuple[dict[str, list[str]], list[str]]:
    """{published name: its names in this state}; and the names that belong to no parameter and no buffer."""
    weights = [table[path] for path in leaves]
    names = {name for path, leaf in leaves.items() for name in names_of(table[path], leaf)}
    names |= {name for weight in weights for name in (weight.added, weight.tied) if name}
    bare = {_bare(name): name for name in names}
    blocks = max((leaf.shape[0] for path, leaf in leaves.items() if is_stack(table[path])), default=1)
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


def check_table(where: str, table: Mapping[str, Weight], leaves: Iterable[str]) -> None:
    """The table has every parameter."""
    absent = [path for path in leaves if path not in table]
    if absent:
        raise InputError(f"{where}: the table must have every parameter, got none for {listed(absent)}")


def check_state(
    table: Mapping[str, Weight], leaves: Mapping[str, Leaf], state: Mapping[str, Any], strict: bool
) -> dict[str, list[str]]:
    """The names that `_find` found; all that is wrong with the state is one InputError."""
    found, besides = _find(table, leaves, state)
    absent: dict[str, list[str]] = {}
    wrong: dict[str, str] = {}
    for path, leaf in leaves.items():
        weight = table[path]
        shape = _shape_there(weight, leaf.shape[1:] if is_stack(weight) else leaf.shape)
        for name in [*names_of(weight, leaf), *([weight.added] if weight.added else [])]:
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
        problems.append(f"no entry for {listed(of_paths)}")
    if besides and strict:
        problems.append(f"{_counted(besides)} that no parameter takes, {listed(besides)}")
    if wrong:
        problems.append(f"{_counted(wrong)} of another kind, {listed(wrong.values())}")
    if twice:
        problems.append(f"two entries for one parameter, {listed(twice)}")
    if lost and not strict and not (wrong or twice):
        count, names = _counted(absent), listed([f"{name} ({', '.join(paths)})" for name, paths in absent.items()])
        raise InputError(
            f"from_state: strict=False leaves as in `like` what has no entry, so `like` must hold arrays there, "
            f"got shapes for {count}: {names}"
        )
    if problems:
        expected = "the state must hold the model's parameters and nothing else"
        hint = " (strict=False allows it)" if strict and not (lost or wrong or twice) else ""
        raise InputError(f"from_state: {expected}, got {'; '.join(problems)}{hint}")
    return found


def _wrong(name: str, array: Any, shape: tuple[int, ...]) -> dict[str, str]:
    """{name: why it can't be a parameter of this shape}; nothing, where it can."""
    if not is_array(array) or tuple(array.shape) != shape:
        return {name: f"{name} must have shape {shape}, got {describe(array)}"}
    if not _is_floating(array):
        return {name: f"{name} must have a floating-point dtype, got {describe(array)}"}
    return {}


def _is_parameter(name: str, table: Mapping[str, Weight], leaves: Iterable[str]) -> bool:
    """Whether the array of this name is a parameter itself."""
    return any(table[path].name == name for path in leaves)


def _shape_there(weight: Weight, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The published shape of a parameter, or block of one, of this shape here."""
    if weight.axes is not None and len(shape) == len(weight.axes):
        shape = tuple(shape[axis] for axis in np.argsort(weight.axes))
    return shape if weight.third is None else (*shape[:-1], 3 * shape[-1])


def as_jax(value: Any) -> Array:
    """`value` as a JAX array. PyTorch's is copied by DLPack, which has bfloat16 too."""
    if hasattr(value, "detach"):
        return jnp.from_dlpack(value.detach().cpu().contiguous(), copy=True)
    return jnp.asarray(value)


def _bare(name: str) -> str:
    """A name without the prefixes of a model around the published one."""
    wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)
    return name if wrapper is None else _bare(name.removeprefix(wrapper))


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(as_jax(one), as_jax(other), equal_nan=True)


def _is_floating(array: Any) -> bool:
    of_torch = getattr(array, "is_floating_point", None)
    return bool(of_torch()) if of_torch else jnp.issubdtype(array.dtype, jnp.floating)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence; of many, some of every kind (the same but for numbers), and the count of the rest."""
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


def _counted(entries: Sized) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
