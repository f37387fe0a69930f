"""repeat: one layer's form n times, each time with other parameters, as a scan."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad.checks import InputError, check_choice, check_count, check_residuals, describe
from handgrad.factors.coupled import coupled, coupling_in
from handgrad.factors.stacked import stack
from handgrad.layers.compact import compact
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.scans import scan_forwarding
from handgrad.layers.structure.recomputed import recomputed
from handgrad.layers.structure.residual import check_like
from handgrad.layers.sums import LoopResiduals

__all__ = ["repeat"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RepeatResiduals(LoopResiduals):
    """What the layers keep. A layer's output is the next one's input: of both, the inputs alone are stacked.

    Attributes:
      kept: a layer's residuals, each array with an axis of n in front; parameters among them are references.
      outputs: the leaves of `kept` that stand for the layer's output, and are its input.
      spent: the leaves that nobody reads after the backward pass of their layer.
      y: the last output, if there are such leaves, or None.
    """

    kept: PyTree
    outputs: tuple[int, ...] = field(default=(), metadata={"static": True})
    spent: tuple[int, ...] = field(default=(), metadata={"static": True})
    y: Array | None = None


def repeat(layer: Layer, n: int, *, residuals: Literal["save", "recompute"] = "save") -> Layer:
    """n layers of one form, one after the other; compile time does not grow with n.

    Every array of the params has an axis of length n in front, and its gradient's factor is Stacked.

    Args:
      layer: its output has the shape and the dtype of its input.
      n: how many times, at least 1.
      residuals: "save" keeps each layer's residuals; "recompute" its input alone, and runs its forward pass again in
        the backward pass (rematerialization), as `recomputed` does.
    Raises:
      InputError: n is not a positive integer; residuals of another name; at trace time, where the layer's output is
        unlike its input or params are not stacked n times.
    Derivation: docs/derivations/structure/repeat.md
    """
    check_layer("repeat", layer)
    check_count("repeat", "n", n)
    check_choice("repeat", "residuals", residuals, ("save", "recompute"))
    layer = placed(None, layer if residuals == "save" else recomputed(layer, prevent_cse=False))

    def init(key, x):
        return jax.vmap(lambda k: layer.init(k, x))(jax.random.split(key, n))

    def forward(params, x, key=None):
        check_stacked("repeat", "params", params, n)
        keys, outputs = None if key is None else jax.random.split(key, n), ()

        def one_layer(x, params_and_key):
            nonlocal outputs
            y, kept = layer.forward(params_and_key[0], x, params_and_key[1])
            check_like("repeat", x, y)
            kept, outputs = _inputs_alone(compact(kept, x, y), x, y)
            return y, kept

        y, kept = scan_forwarding(one_layer, x, (params, keys), length=n)
        leaves = list(map(id, jax.tree.leaves(kept)))
        named = Counter([*leaves, *map(id, jax.tree.leaves((params, keys)))])
        spent = (i for i, leaf in enumerate(leaves) if named[leaf] == 1 and i not in outputs)
        return y, RepeatResiduals(kept, outputs, tuple(spent), y if outputs else None)

    def backward(stacks, dy):
        stacks = check_residuals("repeat", stacks, RepeatResiduals)
        check_stacked("repeat", "residuals", stacks.kept, n)

        def one_layer(dy, i_and_kept):
            dx, dparams = layer.backward(_with_output(stacks, *i_and_kept), dy)
            return dx, stacks.as_wanted(dparams)

        each = jnp.arange(n), stacks.kept
        spent = [1 + i for i in stacks.spent] if stacks.in_place else []
        dx, dparams = scan_forwarding(one_layer, dy, each, length=n, reverse=True, spent=spent)
        # What lies behind a coupling in one layer lies before that of the next.
        return dx, coupled(stack(dparams), layer.couples or coupling_in(dparams))

    return composed(init, forward, backward, layer.couples)


def _inputs_alone(kept: PyTree, x: Array, y: Array) -> tuple[PyTree, tuple[int, ...]]:
    """`kept` with x in the place of y, and these leaves. Unchanged if x isn't kept: y is then one stack as well."""
    leaves, structure = jax.tree.flatten(kept)
    outputs = tuple(i for i, leaf in enumerate(leaves) if leaf is y)
    if y is x or not any(leaf is x for leaf in leaves):
        return kept, ()
    return structure.unflatten([x if leaf is y else leaf for leaf in leaves]), outputs


def _with_output(stacks: RepeatResiduals, i: Array, kept: PyTree) -> PyTree:
    """What layer i kept, with its output in its place: the input of layer i + 1, or the last output."""
    if stacks.y is None:
        return kept
    leaves, structure = jax.tree.flatten(kept)
    inputs = jax.tree.leaves(stacks.kept)[stacks.outputs[0]]
    last = inputs.shape[0] - 1
    # Read and not carried along: XLA fuses the select with what uses y, and would copy a carry.
    of_next = jax.lax.dynamic_index_in_dim(inputs, jnp.minimum(i + 1, last), keepdims=False)
    y = jnp.where(i == last, stacks.y, of_next)
    return structure.unflatten([y if place in stacks.outputs else leaf for place, leaf in enumerate(leaves)])


def check_stacked(where: str, name: str, tree: PyTree, n: int) -> None:
    """Every array has an axis of n layers in front."""
    for leaf in jax.tree.leaves(tree):
        if getattr(leaf, "shape", ())[:1] != (n,):
            raise InputError(f"{where}: {name} must be stacked {n} times, got {describe(leaf)}")
