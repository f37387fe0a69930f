"""Published weights: where each of a model's parameters is in the state that its authors released.

A table, {path of our parameter: Weight}, is all that a model says (`GPT2_STATE`, `LLAMA_STATE`); docs/models.md shows
it. It is read in both directions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.shapes import InputError, describe


class Weight(NamedTuple):
    """One parameter's place in a published state.

    Attributes:
      name: its array there; {block} stands for the number of a block, whose parameters lie stacked here.
      transposed: it is (n_out, n_in) there.
      third: it is this third of the last axis there, 0, 1 or 2; None is the whole.
    """

    name: str
    transposed: bool = False
    third: int | None = None


def from_state(table: Mapping[str, Weight], like: Any, state: Mapping[str, Any]) -> Any:
    """A model's parameters from a published state.

    Args:
      table: {path of a parameter: Weight}.
      like: the parameters, or their ShapeDtypeStructs: `jax.eval_shape(model.init, key, ids)`.
      state: {name: array}; names that the table doesn't have (masks, frequencies) are left aside.
    Returns:
      params like `like`, in its dtypes.
    Raises:
      InputError: a parameter that the table doesn't have; a name missing in the state; an array of another shape.
    """

    def parameter(path, leaf):
        weight = _find(table, path)
        if "{block}" not in weight.name:
            found = _ours(weight, _get(state, weight.name), leaf.shape)
        else:
            blocks = [weight.name.format(block=i) for i in range(leaf.shape[0])]
            found = jnp.stack([_ours(weight, _get(state, name), leaf.shape[1:], name) for name in blocks])
        return found.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(parameter, like)


def to_state(table: Mapping[str, Weight], params: Any) -> dict[str, np.ndarray]:
    """The published state of a model's parameters: {name: array}.

    Raises:
      InputError: a parameter that the table doesn't have.
    """
    state: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        weight = _find(table, path)
        blocks = list(leaf) if "{block}" in weight.name else [leaf]
        for i, block in enumerate(blocks):
            array = np.asarray(block.T if weight.transposed else block)
            name = weight.name.format(block=i)
            if weight.third is None:
                state[name] = array
            else:
                state.setdefault(name, [None] * 3)[weight.third] = array
    return {name: np.concatenate(a, axis=-1) if isinstance(a, list) else a for name, a in state.items()}


def load(table: Mapping[str, Weight], like: Any, path: str | Path) -> Any:
    """`from_state` of a safetensors file. Needs the extra `models`.

    Args:
      table, like: as `from_state`.
      path: the file.
    Raises:
      InputError: as `from_state`.
      FileNotFoundError: no such file.
    """
    from safetensors.flax import load_file

    return from_state(table, like, load_file(path))


def save(table: Mapping[str, Weight], params: Any, path: str | Path) -> None:
    """`to_state` into a safetensors file. Needs the extra `models`."""
    from safetensors.flax import save_file

    save_file({name: jnp.asarray(array) for name, array in to_state(table, params).items()}, path)


def _find(table: Mapping[str, Weight], path: Any) -> Weight:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if name not in table:
        raise InputError(f"published: the table must have every parameter, got none for {name}")
    return table[name]


def _get(state: Mapping[str, Any], name: str) -> Any:
    if name not in state:
        raise InputError(f"published: the state must have {name}, got {len(state)} other names")
    return state[name]


def _ours(weight: Weight, array: Any, shape: tuple[int, ...], name: str = "") -> jax.Array:
    """The published array as our parameter."""
    array = jnp.asarray(array)
    found = array.T if weight.transposed else array
    if weight.third is not None and found.shape[-1] % 3 == 0:
        found = jnp.split(found, 3, axis=-1)[weight.third]
    if found.shape != shape:
        words = "its transpose" if weight.transposed else "it" if weight.third is None else "a third of it"
        raise InputError(f"published: {name or weight.name}: {words} must have shape {shape}, got {describe(array)}")
    return found
