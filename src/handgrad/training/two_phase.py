"""The two-phase update: the full gradient is never materialized.

Phase one is a forward and a backward pass that leave factors, (A, Δ) for a weight matrix. Phase two materializes ONE
parameter's gradient, updates the parameter and frees the gradient before the next; for a stack (`repeat`) one layer at
a time. Over many rows that would gain nothing, and gradients are kept. Of a table the touched rows are updated alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from handgrad import meshes
from handgrad.backprop import Weights
from handgrad.checks import InputError, check_positive, check_shape, describe, path_name
from handgrad.factors import Coupled, Factor, Stacked, is_factor
from handgrad.training.in_turn import Groups, Updates, sq_norm_in_turn
from handgrad.training.leafwise import leafwise
from handgrad.training.parts import OfBatches, Part, Parts, dense, once


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
    for the update (rematerialization). But a kernel's, and one that is not much larger than its factor, is kept for
    both; and of a table's, the rows that some token names. An optimizer like SGD updates these rows alone.

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
    trees = factors.trees if isinstance(factors, MicroBatches) else (factors,)
    if not trees:
        raise InputError("update: MicroBatches must hold the factors of one batch at least, got none")
    parts = _parts(trees, params)
    batches = [_batch_of(tree) for tree in trees]
    if weights is None:
        of_batches: OfBatches = [None] * len(batches)
        return _updated(parts, of_batches, 1 / sum(batches), params, opt_state, optimizer, clip_global_norm)
    _check_weights(weights, sum(batches), parts)
    of_batches = list(jnp.split(jnp.asarray(weights), [sum(batches[:m]) for m in range(1, len(batches))]))
    return _updated(parts, of_batches, 1.0, params, opt_state, optimizer, clip_global_norm)


def update_by_sum(
    factors: PyTree[Factor | Array],
    params: PyTree[Array],
    opt_state: optax.OptState,
    optimizer: optax.GradientTransformation,
    clip_global_norm: float | None,
) -> tuple[PyTree[Array], optax.OptState]:
    """`update` with G = Σ_b g_b: of a backward pass whose cotangents contain the weights."""
    return _updated(_parts((factors,), params), [None], 1.0, params, opt_state, optimizer, clip_global_norm)


def _updated(
    parts: list[Parts],
    of_batches: OfBatches,
    scale: Array | float,
    params: PyTree[Array],
    opt_state: optax.OptState,
    optimizer: optax.GradientTransformation,
    clip: float | None,
) -> tuple[PyTree[Array], optax.OptState]:
    """One step of optax on `scale` times the sum of the weighted parts, clipped."""
    if of_batches[0] is None:
        parts = [tuple(p.factor if isinstance(p, Coupled) else p for p in of_one) for of_one in parts]
    leaves, structure = jax.tree.flatten(params)
    leaves = list(map(jnp.asarray, leaves))
    groups = _groups(parts)
    stacks = [i for layers, places in groups.items() if layers for i in places]
    program = leafwise("update", optimizer, params, opt_state, stacks)
    ready = [
        once(of_one, of_batches, clip is not None, program.keeps_untouched(i, leaves[i].dtype))
        for i, of_one in enumerate(parts)
    ]
    for i in stacks:
        program.check_elementwise("update", i)
    if clip is not None:
        norm = scale * jnp.sqrt(sq_norm_in_turn(ready, of_batches, groups))
        scale = scale * jnp.where(norm < clip, 1, clip / norm)

    def gradient(part: Part, param: Array) -> Array:
        return (dense(part, of_batches, param.shape) * scale).astype(param.dtype)

    states, of_states = jax.tree.flatten(opt_state)
    common, of_all = program.common(states)
    updates = Updates(program, common, gradient)
    both = [(leaf, [states[j] for j in program.states_of(i)]) for i, leaf in enumerate(leaves)]
    for layers, places in groups.items():
        if layers:
            old = [both[i] for i in places]
            for i, new in zip(places, updates.of_stacks(places, [ready[i] for i in places], old, layers), strict=True):
                both[i] = new
        else:
            for i, after in zip(places, [*places[-1:], *places], strict=False):
                both[i] = updates.of_one(i, ready[i], both[i], meshes.first(both[after][0]))
    for place, of_place in [(None, of_all), *enumerate(of_param for _, of_param in both)]:
        for j, state in zip(program.states_of(place), of_place, strict=True):
            states[j] = state
    leaves = [leaf for leaf, _ in both]
    return jax.tree.unflatten(structure, leaves), jax.tree.unflatten(of_states, states)


def _groups(parts: list[Parts]) -> Groups:
    groups: Groups = {}
    for i, of_one in enumerate(parts):
        layers = of_one[0].shape[0] if all(isinstance(part, Stacked) for part in of_one) else 0
        groups.setdefault(layers, []).append(i)
    return groups


def _parts(trees: Sequence[PyTree[Factor | Array]], params: PyTree[Array]) -> list[Parts]:
    """For each parameter its factor in every micro-batch."""
    paths = jax.tree.leaves_with_path(params)
    parts: list[Parts] = [()] * len(paths)
    for tree in trees:
        leaves = jax.tree.leaves(tree, is_leaf=is_factor)
        if jax.tree.structure(tree, is_leaf=is_factor) != jax.tree.structure(params):
            raise InputError(f"update: factors must have params' structure, got {len(leaves)} for {len(paths)} leaves")
        for (path, param), leaf in zip(paths, leaves, strict=True):
            name = path_name(path)
            check_shape("update", f"the gradient of {name}", leaf, param.shape, "(the parameter's)")
        parts = [(*of_one, leaf) for of_one, leaf in zip(parts, leaves, strict=True)]
    return parts


def _batch_of(tree: PyTree[Factor | Array]) -> int:
    """The number of examples of one micro-batch."""
    sizes = {leaf.batch for leaf in jax.tree.leaves(tree, is_leaf=is_factor) if isinstance(leaf, Factor)}
    if len(sizes) != 1:
        raise InputError(f"update: factors must be of one batch, got {sorted(sizes) or 'none'}")
    return sizes.pop()


def _check_weights(weights: Array | np.ndarray, examples: int, parts: list[Parts]) -> None:
    check_shape("update", "weights", weights, (examples,), "(one for each example)")
    for part in (part for of_one in parts for part in of_one):
        if not is_factor(part):
            raise InputError(f"update: weights need a factor, got a summed gradient, {describe(part)}")
