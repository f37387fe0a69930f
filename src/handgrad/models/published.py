"""Published weights: where each of a model's parameters is in the state that its authors released.

A table, {path of our parameter: Weight}, is all that a model says (`GPT2_STATE`, `resnet_state(config)`). It is read in
both directions. docs/models.md shows them all.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from handgrad.checks import path_name
from handgrad.models.state_table import Weight, as_jax, check_state, check_table, is_stack, names_of


def from_state(
    table: Mapping[str, Weight], like: PyTree, state: Mapping[str, Any], *, strict: bool = True
) -> PyTree[Array]:
    """A model's parameters from a published state.

    The state must hold them all, and nothing else but the table's buffers (masks, frequencies). Names are compared
    without the prefixes of a model around the published one, "transformer." or "model.", on either side.

    Args:
      table: {path of a parameter: Weight}.
      like: the parameters, or their ShapeDtypeStructs: `jax.eval_shape(model.init, key, ids)`.
      state: {name: array}, of NumPy, JAX or PyTorch.
      strict: False ignores entries that no parameter takes, and leaves parameters without an entry as in `like`.
    Returns:
      params like `like`, in its dtypes.
    Raises:
      InputError: parameters that the table doesn't have. In one sentence, with their names: parameters without an
        entry (with strict=False, where `like` has only shapes); entries that no parameter takes (with strict=False,
        none); entries of another shape, or not of floating-point numbers; several entries for one name; an entry that
        is tied to another and differs from it.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = {path_name(path): leaf for path, leaf in paths}
    check_table("from_state", table, leaves)
    found = check_state(table, leaves, state, strict)
    params = []
    for path, leaf in leaves.items():
        weight = table[path]
        blocks = [_parameter(weight, name, state, found, leaf.dtype) for name in names_of(weight, leaf)]
        if is_stack(weight):
            stack = jnp.stack([leaf[i] if block is None else block for i, block in enumerate(blocks)])
            params.append(stack.astype(leaf.dtype))
        else:
            params.append(jnp.asarray(leaf) if blocks[0] is None else blocks[0].astype(leaf.dtype))
    return jax.tree.unflatten(structure, params)


def to_state(table: Mapping[str, Weight], params: PyTree) -> dict[str, np.ndarray]:
    """The published state of a model's parameters: {name: array}, with the table's names and no buffers.

    Raises:
      InputError: parameters that the table doesn't have.
    """
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    check_table("to_state", table, leaves)
    state: dict[str, Any] = {}
    for path, leaf in leaves.items():
        weight = table[path]
        for name, block in zip(names_of(weight, leaf), leaf if is_stack(weight) else [leaf], strict=True):
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


def _parameter(
    weight: Weight, name: str, state: Mapping[str, Any], found: Mapping[str, list[str]], dtype: np.dtype
) -> Array | None:
    """The published array of this name as our parameter, or block of one; None where the state has none."""
    entry = name if name in found else weight.tied
    if entry is None or entry not in found:
        return None
    array = as_jax(state[found[entry][0]])
    array = array if weight.axes is None else array.transpose(weight.axes)
    array = array if weight.third is None else jnp.split(array, 3, axis=-1)[weight.third]
    if weight.image:
        height, width, features = weight.image
        array = array.reshape(features, height, width, -1).transpose(1, 2, 0, 3).reshape(array.shape)
    if weight.added is None or weight.added not in found:
        return array
    return array.astype(jnp.promote_types(array.dtype, dtype)) + as_jax(state[found[weight.added][0]])
