"""jax.lax.scan over layers, with fewer copies of what they keep."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad import meshes

__all__ = []


def scan_forwarding(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    reverse: bool = False,
    spent: Sequence[int] = (),
) -> tuple[PyTree, PyTree]:
    """jax.lax.scan, except that an input which `body` returns unchanged is not copied.

    An output that is one of the inputs (a weight kept as a residual, a residual kept as a factor's side) comes back
    as the whole stacked input itself, and an output that is named twice is stacked once. (Today's lax.scan does the
    former unasked; nothing promises that it always will.)

    Args:
      spent: leaves of xs that are read by their own iteration alone. Outputs take their places, where they fit: the
        stacks of the outputs then need no memory of their own.
    """
    inputs = jax.tree.leaves(xs)
    structure, places = None, []

    def traced(carry, x):
        nonlocal structure, places
        carry, y = body(carry, x)
        pool = jax.tree.leaves(x)
        place = {id(leaf): i for i, leaf in enumerate(pool)}
        leaves, structure = jax.tree.flatten(y)
        for leaf in leaves:
            if id(leaf) not in place:
                place[id(leaf)] = len(pool)
                pool.append(leaf)
        places = [place[id(leaf)] for leaf in leaves]
        return carry, pool[len(inputs) :]

    homes: dict[int, int] = {}
    if spent and not meshes.is_placed((carry, xs)):
        of_one = jax.eval_shape(lambda xs: jax.tree.map(lambda a: a[0], xs), xs)
        _, fresh = jax.eval_shape(traced, carry, of_one)
        leaves = enumerate(jax.tree.leaves(of_one))
        homes = _homes(fresh, {i: leaf for i, leaf in leaves if i in spent and i not in places})
    if not homes:
        carry, fresh = meshes.scan(traced, carry, xs, length=length, reverse=reverse)
    else:
        carry, fresh = _scan_in_place(traced, carry, xs, homes, length=length, reverse=reverse)
    pool = [*inputs, *fresh]
    return carry, jax.tree.unflatten(structure, [pool[place] for place in places])


def _scan_in_place(
    body: Callable[[PyTree, PyTree], tuple[PyTree, list[Array]]],
    carry: PyTree,
    xs: PyTree,
    homes: dict[int, int],
    *,
    length: int,
    reverse: bool,
) -> tuple[PyTree, list[Array]]:
    """The scan, with output number i in the place of input number homes[i], which is carried and updated in-place."""
    inputs, structure = jax.tree.flatten(xs)
    shapes: dict[int, tuple[int, ...]] = {}

    def one(carry_and_stacks: PyTree, k_and_others: PyTree) -> PyTree:
        (carry, stacks), (k, x) = carry_and_stacks, k_and_others
        # A branch, always taken, reads what is overwritten: XLA would fuse the read with what uses it, later than the
        # write, and copy the whole stack for that.
        nothing = [jnp.zeros_like(stack[0]) for stack in stacks]
        spent = jax.lax.cond(k < length, lambda: [stack[k] for stack in stacks], lambda: nothing)
        for i, leaf in zip(homes.values(), spent, strict=True):
            x[i] = leaf.reshape(inputs[i].shape[1:])
        carry, fresh = body(carry, structure.unflatten(x))
        for j, i in enumerate(homes):
            shapes[i] = fresh[i].shape
            stacks[j] = jax.lax.dynamic_update_slice(stacks[j], _as_rows(fresh[i], 0)[None], (k, 0, 0))
        return (carry, stacks), [None if i in homes else leaf for i, leaf in enumerate(fresh)]

    stacks = [_as_rows(inputs[i], 1) for i in homes.values()]
    others = [None if i in homes.values() else leaf for i, leaf in enumerate(inputs)]
    (carry, stacks), fresh = jax.lax.scan(one, (carry, stacks), (jnp.arange(length), others), length, reverse)
    for i, stack in zip(homes, stacks, strict=True):
        fresh[i] = stack[:, : math.prod(shapes[i][:-1])].reshape(length, *shapes[i])
    return carry, fresh


def _as_rows(A: Array, axes: int) -> Array:
    """A with all axes between the first ones and the last as one."""
    return A.reshape(*A.shape[:axes], math.prod(A.shape[axes:-1]), A.shape[-1])


def _homes(outputs: Sequence[jax.ShapeDtypeStruct], inputs: dict[int, jax.ShapeDtypeStruct]) -> dict[int, int]:
    """For outputs an input each that they fit into: of one dtype and last axis, with no less rows and at most twice as
    many."""
    homes: dict[int, int] = {}
    for i in sorted(range(len(outputs)), key=lambda i: -outputs[i].size):
        for j, leaf in inputs.items():
            like = (outputs[i].dtype, outputs[i].shape[-1:]) == (leaf.dtype, leaf.shape[-1:])
            if leaf.ndim and like and j not in homes.values() and outputs[i].size <= leaf.size <= 2 * outputs[i].size:
                homes[i] = j
                break
    return homes
