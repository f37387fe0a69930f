"""One parameter, one layer of a stack after the other: what is materialized for one is freed before the next."""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad import meshes
from handgrad.factors import Factor, Stacked, is_factor
from handgrad.factors.base import accumulator
from handgrad.training.equations import Values
from handgrad.training.leafwise import Leafwise
from handgrad.training.parts import OfBatches, Part, Rows, Sum, sq_norm

T = TypeVar("T")
OneParam = tuple[Array, list[Array]]  # with its leaves of the state
Groups = dict[int, list[int]]  # the parameters that are updated together, by the layers of their stacks; 0: singly


class Updates(NamedTuple):
    """Phase two: materialize, update, free.

    Attributes:
      program, common: the optimizer's step, and what all parameters share.
      gradient: the parts of a parameter or layer, and its old value -> its gradient.
    """

    program: Leafwise
    common: Values
    gradient: Callable[[Part, Array], Array]

    def of_one(self, i: int, part: Part, old: OneParam, before: Array) -> OneParam:
        """Parameter i; if its dW is not there yet, it isn't until the scalar `before` is computed, and is freed after.

        That is in a loop of one iteration, since no number is below −∞; but XLA can't know that. A loop updates what it
        carries in-place. It would compute dW before the loop if it didn't depend on the iteration.
        """
        if isinstance(part, Rows) and self.program.keeps_untouched(i, old[0].dtype):
            return self.of_rows(i, part, *old)
        if isinstance(part, Sum):
            return self.program.update(self.common, i, self.gradient(part, old[0]), *old)

        def step(k: Array, old: OneParam) -> OneParam:
            grad = _in_turn(before + k, lambda: self.gradient(part, old[0]))
            return self.program.update(self.common, i, grad, *old)

        count = jnp.where(before < -jnp.inf, 0, 1)
        return meshes.fori_loop(count, step, meshes.beside(part, old), part)

    def of_rows(self, i: int, part: Rows, param: Array, states: list[Array]) -> OneParam:
        """A table's touched rows are read, updated and written back; the others stay where they are."""
        old = meshes.take_rows(param, part.ids, 0)
        rows, states = self.program.update(self.common, i, self.gradient(Sum(part.G), old), old, states)
        return meshes.with_rows(param, part.ids, rows), states

    def of_stacks(self, places: list[int], parts: list[Part], old: list[OneParam], layers: int) -> list[OneParam]:
        """Stacks, one layer of each after the other.

        Carried and not scanned over, so that each layer is updated in-place. A branch, always taken, reads the old
        layer first: XLA would fuse a read with the write, read once more too late, and keep a copy of the whole stack
        for that.
        """

        def one_layer(k: Array, stacks: list[OneParam]) -> list[OneParam]:
            nothing = jax.tree.map(lambda stack: jnp.zeros_like(stack[0]), stacks)
            olds = jax.lax.cond(k < layers, lambda: _layer(stacks, k), lambda: nothing)
            new = []
            for i, part, (param, states) in zip(places, _layer(parts, k), olds, strict=True):
                grad = self.gradient(part, param)
                new.append(self.program.update(self.common, i, grad, param, states, k))
            return jax.tree.map(lambda stack, a: jax.lax.dynamic_update_index_in_dim(stack, a, k, 0), stacks, new)

        return meshes.fori_loop(layers, one_layer, meshes.beside(parts, old), parts)


def sq_norm_in_turn(parts: list[Part], weights: OfBatches, groups: Groups) -> Array:
    """‖G‖², one parameter, one layer after the other."""
    dtype = accumulator(*jax.tree.leaves(parts))
    total = jnp.zeros((), dtype)
    for layers, places in groups.items():
        if layers:

            def one_layer(k: Array, total: Array, places: list[int] = places) -> Array:
                squares = (sq_norm(_layer(parts[i], k), weights).astype(dtype) for i in places)
                return functools.reduce(operator.add, squares, total)

            total = meshes.fori_loop(layers, one_layer, total, [parts[i] for i in places])
        else:
            for i in places:
                of_one = functools.partial(sq_norm, parts[i], weights)
                square = of_one() if isinstance(parts[i], Sum | Rows) else _in_turn(total, of_one)
                total = total + square.astype(dtype)
    return total


def _in_turn(before: Array, make: Callable[[], Array]) -> Array:
    """`make()`, which doesn't start until the scalar `before` is computed.

    It runs in a branch that is always taken, since no number is below −∞; but XLA can't know that. It moves nothing out
    of a branch to where it would stay live for longer, and doesn't merge the norm's products with those of phase two to
    keep them until then. (optimization_barrier is for this, but XLA drops it on CPU.)
    """
    like = jax.eval_shape(make)
    return jax.lax.cond(before < -jnp.inf, lambda: jnp.zeros(like.shape, like.dtype), make)


def _layer(stacks: T, k: Array) -> T:
    """Layer k of every array and of every Stacked factor."""

    def of_one(stack: Factor | Array) -> PyTree:
        factor = stack.factor if isinstance(stack, Stacked) else stack
        return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, k, keepdims=False), factor)

    return jax.tree.map(of_one, stacks, is_leaf=is_factor)
