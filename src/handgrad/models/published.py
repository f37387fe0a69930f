"""Published weights: where each of a model's parameters is in the state that its authors released.

A table, {path of our parameter: Weight}, is all that a model says (`GPT2_STATE`, `resnet_state(config)`). It is read in
both directions. docs/models.md shows them all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.shapes import InputError, describe, path_name

TRANSPOSED = (1, 0)  # weights, (n_out, n_in) there
KERNEL = (2, 3, 1, 0)  # of a convolution, (n_out, n_in, height, width) there


class Weight(NamedTuple):
    """One parameter's place in a published state.

    Attributes:
      name: its array there; {block} stands for the number of a block, whose parameters lie stacked here.
      axes: which axis there is each of ours; None where they are the same.
      third: it is this third of the last axis there, 0, 1 or 2; None is the whole.
      added: another array there, which has to be added: two biases where one is enough. On the way back it is 0.
    """

    name: str
    axes: tuple[int, ...] | None = None
    third: int | None = None
    added: str | None = None


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
        if "{block}" in weight.name:
            blocks = [weight.name.format(block=i) for i in range(leaf.shape[0])]
            found = jnp.stack([_ours(weight, name, state, leaf.shape[1:]) for name in blocks])
        else:
            found = _ours(weight, weight.name, state, leaf.shape)
            if weight.added:
                found = found + _ours(weight, weight.added, state, leaf.shape)
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
            array = np.asarray(block)
            array = array if weight.axes is None else array.transpose(np.argsort(weight.axes))
            name = weight.name.format(block=i)
            if weight.third is None:
                state[name] = array
            else:
                state.setdefault(name, [None] * 3)[weight.third] = array
            if weight.added:
                state[weight.added] = np.zeros_like(array)
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
    name = path_name(path)
    if name not in table:
        raise InputError(f"published: the table must have every parameter, got none for {name}")
    return table[name]


def _ours(weight: Weight, name: str, state: Mapping[str, Any], shape: tuple[int, ...]) -> jax.Array:
    """The published array of this name as our parameter."""
    if name not in state:
        raise InputError(f"published: the state must have {name}, got {len(state)} other names")
    found = array = jnp.asarray(state[name])
    words = "it"
    if weight.axes is not None and array.ndim == len(weight.axes):
        found, words = array.transpose(weight.axes), f"its axes {weight.axes}"
    if weight.third is not None and array.shape[-1] % 3 == 0:
        found, words = jnp.split(array, 3, axis=-1)[weight.third], "a third of it"
    if found.shape != shape:
        raise InputError(f"published: {name}: {words} must have shape {shape}, got {describe(array)}")
    return found
