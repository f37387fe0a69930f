"""The two-phase update: the full gradient is never materialized.

Phase one is a forward and a backward pass that leave factors, (A, Δ) for a weight matrix. Phase two materializes ONE
parameter's gradient, updates the parameter and frees the gradient before the next; for a stack (`repeat`) one layer at
a time.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from handgrad import meshes
from handgrad.backprop import Weights
from handgrad.checks import InputError, check_positive, check_shape, describe, path_name
from handgrad.factors import Correlation, Coupled, Factor, Outer, Stacked, is_factor
from handgrad.factors.base import accumulator, as_rows, weighted
from handgrad.training.leafwise import Leafwise, leafwise

T = TypeVar("T")
Parts = tuple[Factor | Array, ...]  # one parameter's factor, or summed gradient, in each micro-batch
OfBatches = list[Array | None]  # the weights of each micro-batch
Stacks = list[tuple[Array, list[Array]]]  # parameters under `repeat`, each with its leaves of the state


class _Sum(NamedTuple):
    """In the place of a parameter's factors: dW, materialized."""

    dW: Array


class MicroBatches(NamedTuple):
    """Factors of several batches, for one update with the gradient of all their examples (gradient accumulation).

    Attributes:
      trees: what `value_and_factors` returned for each. The batches may differ in size.
    """

    trees: tuple[PyTree[Factor | Array], ...]


def update(
    factors: PyTree[Factor | Array] | MicroBatches,
    params: PyTree[Array],
    opt_state: optax.OptState,
    optimizer: optax.GradientTransformation,
    clip_global_norm: float | None = None,
    weights: Weights = None,
) -> tuple[PyTree[Array], optax.OptState]:
    """One step of optax on G = Σ_b w_b g_b, or on G min(1, C / ‖G‖), without G: one parameter, one layer at a time.

    The same numbers as `optimizer.update` on `materialize(factors, weights)`, with the gradient of one parameter, or of
    one layer of a stack, in memory. ‖G‖² = Σ ‖dW‖² comes first, also one dW after the other: for an Outer over few rows
    ‖AᵀΔ‖² = ⟨A Aᵀ, Δ Δᵀ⟩ without dW (ghost norm), else dW is materialized, reduced to its norm, and materialized again
    for the update (rematerialization); but a kernel's, and any that is smaller than its factor, once, for both.

    Args:
      factors: from `value_and_factors`, or MicroBatches of them. An array in a factor's place is Σ_b g_b, summed by its
        layer.
      optimizer: one that updates each parameter from its own gradient and state, and a stack elementwise: sgd,
        momentum, adam, adamw, rmsprop, schedules, MultiSteps, chains of these.
      clip_global_norm: C, positive, in the place of optax.clip_by_global_norm; None doesn't clip.
      weights: the w_b, of micro-batches concatenated; None stands for 1 / batch each, the mean.
    Returns:
      The new (params, opt_state). Donate the old ones to the compiled step, and they are updated in-place.
    Raises:
      InputError: at trace time: weights for a summed or Coupled gradient; factors unlike params; an optimizer that
        needs several gradients at once, several layers of a stack, or more than gradients, its state and params.
    Source: docs/two_phase.md
    """
    if clip_global_norm is not None:
        check_positive("update", "clip_global_norm", clip_global_norm)
    parts, batches = _parts(factors, params)
    of_batches: OfBatches = [None] * len(batches)
    if weights is None:
        parts = [tuple(p.factor if isinstance(p, Coupled) else p for p in of_one) for of_one in parts]
    else:
        _check_weights(weights, sum(batches), parts)
        of_batches = list(jnp.split(jnp.asarray(weights), [sum(batches[:m]) for m in range(1, len(batches))]))
    groups = _groups(parts)
    stacks = [i for layers, places in groups.items() if layers for i in places]
    program = leafwise("update", optimizer, params, opt_state, stacks)
    ready = [_at_once(of_one, of_batches, clip_global_norm is not None) for of_one in parts]
    for i in stacks:
        program.check_elementwise("update", i)

    scale: Array | float = 1 / sum(batches) if weights is None else 1.0
    if clip_global_norm is not None:
        norm = scale * jnp.sqrt(_sq_norm(ready, of_batches, groups))
        scale = scale * jnp.where(norm < clip_global_norm, 1, clip_global_norm / norm)

    def gradient(parts: Parts | _Sum, dtype: jnp.dtype) -> Array:
        return (_multiply(parts, of_batches) * scale).astype(dtype)

    leaves, structure = jax.tree.flatten(params)
    states, of_states = jax.tree.flatten(opt_state)
    leaves, states = _update(program, gradient, ready, groups, list(map(jnp.asarray, leaves)), states)
    return jax.tree.unflatten(structure, leaves), jax.tree.unflatten(of_states, states)


def _update(
    program: Leafwise,
    gradient: Callable[[Parts | _Sum, jnp.dtype], Array],
    parts: list[Parts | _Sum],
    groups: dict[int, list[int]],
    params: list[Array],
    states: list[Array],
) -> tuple[list[Array], list[Array]]:
    """Phase two: materialize, update, free."""
    common, of_all = program.common(states)
    own = [[states[j] for j in program.states_of(i)] for i in range(len(params))]

    done = jnp.zeros(())
    for layers, places in groups.items():
        if not layers:
            for i in places:
                make = functools.partial(gradient, parts[i], params[i].dtype)
                grad = make() if isinstance(parts[i], _Sum) else _in_turn(done, make)
                params[i], own[i] = program.update(common, i, grad, params[i], own[i])
                done = jnp.sum(params[i].reshape(-1)[:1])
            continue

        def one_layer(k: Array, stacks: Stacks, places: list[int] = places, layers: int = layers) -> Stacks:
            # Carried and not scanned over, so that each layer is updated in-place. A branch, always taken, reads the
            # old layer first: XLA would fuse a read with the write, read once more too late, and keep a copy of the
            # whole stack for that.
            nothing = jax.tree.map(lambda stack: jnp.zeros_like(stack[0]), stacks)
            olds = jax.lax.cond(k < layers, lambda: _layer(stacks, k), lambda: nothing)
            new = []
            for i, (param, of_param) in zip(places, olds, strict=True):
                grad = gradient(_layer(parts[i], k), param.dtype)
                new.append(program.update(common, i, grad, param, of_param, k))
            return jax.tree.map(lambda stack, a: jax.lax.dynamic_update_index_in_dim(stack, a, k, 0), stacks, new)

        of_these = [parts[i] for i in places]
        old = meshes.beside(of_these, [(params[i], own[i]) for i in places])
        stacks = meshes.fori_loop(layers, one_layer, old, of_these)
        for i, new in zip(places, stacks, strict=True):
            params[i], own[i] = new
    states = list(states)
    for place, new in [(None, of_all), *enumerate(own)]:
        for j, state in zip(program.states_of(place), new, strict=True):
            states[j] = state
    return params, states


def _sq_norm(parts: list[Parts | _Sum], weights: OfBatches, groups: dict[int, list[int]]) -> Array:
    """‖G‖², one parameter, one layer after the other."""
    dtype = accumulator(*jax.tree.leaves(parts))
    total = jnp.zeros((), dtype)
    for layers, places in groups.items():
        if layers:

            def one_layer(k: Array, total: Array, places: list[int] = places) -> Array:
                squares = (_sq_norm_of_one(_layer(parts[i], k), weights).astype(dtype) for i in places)
                return functools.reduce(operator.add, squares, total)

            total = meshes.fori_loop(layers, one_layer, total, [parts[i] for i in places])
        else:
            for i in places:
                of_one = functools.partial(_sq_norm_of_one, parts[i], weights)
                square = of_one() if isinstance(parts[i], _Sum) else _in_turn(total, of_one)
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


def _sq_norm_of_one(parts: Parts | _Sum, weights: OfBatches) -> Array:
    """‖dW‖². The rows of an Outer, taken as the tokens of one example, have its ghost norm without AᵀΔ, where that is
    less work and they are on one device, since the Gram matrix takes every pair of rows."""
    outers = [part for part in parts if isinstance(part, Outer) and meshes.places(part, part.batch) == 1]
    if len(outers) < len(parts):
        return jnp.sum(_multiply(parts, weights) ** 2)
    A = jnp.concatenate([as_rows(outer.A) for outer in outers])
    Delta = jnp.concatenate([as_rows(weighted(outer.Delta, w)) for outer, w in zip(outers, weights, strict=True)])
    return Outer(A[None], Delta[None]).sq_norms()[0]


def _multiply(parts: Parts | _Sum, weights: OfBatches) -> Array:
    """dW = Σ over the micro-batches, in the dtype of the sum."""
    if isinstance(parts, _Sum):
        return parts.dW
    sums = (
        part.accumulate(w) if isinstance(part, Factor) else part.astype(accumulator(part))
        for part, w in zip(parts, weights, strict=True)
    )
    return functools.reduce(operator.add, sums)


def _at_once(parts: Parts, weights: OfBatches, clipped: bool) -> Parts | _Sum:
    """dW materialized, where rematerialization would gain nothing.

    That is where dW is no larger than its factor: a scale, a bias, most convolution kernels. A clipped kernel is too,
    since its norm takes as long as its gradient. An Outer stays a product whatever its size, since its sides are often
    live for other parameters too.
    """
    kinds = jax.tree.leaves(parts, is_leaf=lambda node: isinstance(node, Outer | Correlation))
    if all(isinstance(kind, Outer) for kind in kinds):
        return parts
    is_kernel = any(isinstance(kind, Correlation) for kind in kinds)
    like = jax.eval_shape(_multiply, parts, weights)
    small = like.size * like.dtype.itemsize <= sum(a.nbytes for a in jax.tree.leaves(parts))
    return _Sum(_multiply(parts, weights)) if small or (clipped and is_kernel) else parts


def _layer(stacks: T, k: Array) -> T:
    """Layer k of every array and of every Stacked factor."""

    def of_one(stack: Factor | Array) -> PyTree:
        factor = stack.factor if isinstance(stack, Stacked) else stack
        return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, k, keepdims=False), factor)

    return jax.tree.map(of_one, stacks, is_leaf=is_factor)


def _groups(parts: list[Parts]) -> dict[int, list[int]]:
    """The parameters that are updated together, by the number of layers of their stacks; 0 for single parameters."""
    groups: dict[int, list[int]] = {}
    for i, of_one in enumerate(parts):
        layers = of_one[0].shape[0] if all(isinstance(part, Stacked) for part in of_one) else 0
        groups.setdefault(layers, []).append(i)
    return groups


def _parts(factors: PyTree, params: PyTree) -> tuple[list[Parts], list[int]]:
    """For each parameter its factor in every micro-batch, and the sizes of the micro-batches."""
    trees = factors.trees if isinstance(factors, MicroBatches) else (factors,)
    paths = jax.tree.leaves_with_path(params)
    parts: list[Parts] = [()] * len(paths)
    batches: list[int] = []
    for tree in trees:
        leaves = jax.tree.leaves(tree, is_leaf=is_factor)
        if jax.tree.structure(tree, is_leaf=is_factor) != jax.tree.structure(params):
            raise InputError(f"update: factors must have params' structure, got {len(leaves)} for {len(paths)} leaves")
        for (path, param), leaf in zip(paths, leaves, strict=True):
            name = path_name(path)
            check_shape("update", f"the gradient of {name}", leaf, param.shape, "(the parameter's)")
        sizes = {leaf.batch for leaf in leaves if isinstance(leaf, Factor)}
        if len(sizes) != 1:
            raise InputError(f"update: factors must be of one batch, got {sorted(sizes) or 'none'}")
        batches += sizes
        parts = [(*of_one, leaf) for of_one, leaf in zip(parts, leaves, strict=True)]
    if not trees:
        raise InputError("update: MicroBatches must hold the factors of one batch at least, got none")
    return parts, batches


def _check_weights(weights: Array | np.ndarray, examples: int, parts: list[Parts]) -> None:
    check_shape("update", "weights", weights, (examples,), "(one for each example)")
    for part in (part for of_one in parts for part in of_one):
        if not is_factor(part):
            raise InputError(f"update: weights need a factor, got a summed gradient, {describe(part)}")
