"""The two-phase update: factors first, then one layer after the other is multiplied, used and forgotten.

Phase one, forward and backward, leaves (A, Δ) for every parameter. Phase two multiplies out one parameter's gradient,
or one layer's of a stack, for the optimiser to use at once: all gradients never stand in memory together.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from handgrad.backprop import check_batches, mean_weights, weighted_sum
from handgrad.factors import Factor, Outer, Stacked, is_factor
from handgrad.factors.base import accumulator, as_rows, weighted
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import check_layer, check_loss
from handgrad.shapes import InputError, check_positive, check_shape, describe
from handgrad.training.per_parameter import WHERE, PerParameter
from handgrad.training.step import TrainState

Array = jax.Array


def update(
    factors: Any,
    params: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
    clip_global_norm: float | None = None,
    weights: Any = None,
) -> tuple[Any, Any]:
    """optimizer.update and optax.apply_updates with G = Σ_b w_b g_b, of which one layer at a time is there.

    With clip_global_norm the gradient is G min(1, c / ‖G‖), ‖G‖² = Σ over parameters of ‖Σ_b w_b g_b‖²: what
    `optax.clip_by_global_norm(c)` in front of the optimizer would do. It takes a pass of its own over the factors: by
    ⟨A Aᵀ, Δ Δᵀ⟩ where a weight has few rows, else one layer's product at a time, which is then multiplied twice.

    Args:
      factors: of `value_and_factors`, a factor or a summed gradient for each parameter; or a list of several, one for
        each micro-batch of a batch, whose gradients add up.
      params, opt_state: as optax takes them. Donate them, and they are updated in their place.
      optimizer: a transformation that treats each parameter by itself, and each layer of a `Stacked` one.
      clip_global_norm: c, positive; None does not clip.
      weights: (batch,) the w_b; a list of such for micro-batches; None stands for the mean, 1 / batch each, over the
        examples of all micro-batches.
    Returns:
      (params, opt_state) after the step.
    Raises:
      InputError: at trace time, an optimizer that needs several gradients at once, or several layers of a stack;
        factors unlike the params; weights of another length; weights for a gradient that is summed already.
    Source: Goodfellow, "Efficient per-example gradient computations" (arXiv:1510.01799) for norms without gradients.
    Derivation: docs/two_phase.md
    """
    gradients = _gradients(WHERE, factors, params, weights)
    scale = _mean_over(WHERE, gradients) if weights is None else None
    return _update(WHERE, gradients, scale, params, opt_state, optimizer, clip_global_norm)


def two_phase_step(
    model: Layer, loss: Loss, optimizer: optax.GradientTransformation, clip_global_norm: float | None = None
) -> Callable[..., Any]:
    """`train_step` in two phases: the same step, without the full gradient.

    Returns:
      (state, x, target, weights=None, key=None) -> (state, value), value being the objective before the step. Pure;
      to be compiled by whoever calls it, with the state donated.
    Raises:
      InputError: at trace time, as `value_and_grad` and `update`.
    """
    where = "two_phase_step"
    check_layer(where, model)
    check_loss(where, loss)

    def step(state: TrainState, x, target, weights=None, key=None) -> tuple[TrainState, Array]:
        params, x, target, weights = check_batches(where, state.params, x, target, weights)
        prediction, model_residuals = model.forward(params, x, key)
        losses, loss_residuals = loss.forward(prediction, target)
        # Weighted here, and not in the factors, so that layers which sum their gradients at once can take part.
        dloss = mean_weights(losses) if weights is None else weights.astype(losses.dtype)
        _, factors = model.backward(model_residuals, loss.backward(loss_residuals, dloss))
        gradients = _gradients(where, factors, params)
        params, opt_state = _update(where, gradients, None, params, state.opt_state, optimizer, clip_global_norm)
        return TrainState(params, opt_state, state.step + 1), weighted_sum(losses, weights)

    return step


def _update(
    where: str,
    gradients: Sequence["_Gradient"],
    scale: Any,
    params: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
    clip_global_norm: float | None,
) -> tuple[Any, Any]:
    """The update with scale times these gradients, one for each parameter; None does not scale."""
    parts = PerParameter(optimizer, opt_state, params, where)
    if clip_global_norm is not None:
        check_positive(where, "clip_global_norm", clip_global_norm)
        norm = jnp.sqrt(sum(gradient.sq_norm() for gradient in gradients)) * (1 if scale is None else scale)
        shrink = jnp.where(norm < clip_global_norm, 1, clip_global_norm / norm)
        scale = shrink if scale is None else scale * shrink
        # The same products, once for the norm and once for the update: a compiler that saw it would keep them all.
        gradients, scale = jax.lax.optimization_barrier((gradients, scale))
    leaves, structure = jax.tree.flatten(params)
    state = [*parts.state]
    for at, value in zip(parts.gradient_free, parts.rest(), strict=True):
        state[at] = value
    for i, gradient in enumerate(gradients):
        update_one = _update_stack if gradient.is_stack else _update_leaf
        leaves[i], new_state = update_one(parts, i, gradient, scale)
        for at, value in zip(parts.state_of[i], new_state, strict=True):
            state[at] = value
    return jax.tree.unflatten(structure, leaves), parts.unflatten_state(state)


def _update_leaf(parts: PerParameter, i: int, gradient: "_Gradient", scale: Any) -> tuple[Any, list[Array]]:
    """A parameter that has one gradient: multiply, update."""
    param = parts.params[i]
    step, *new_state = parts.of(i)(parts.state, parts.params, gradient.total(scale).astype(param.dtype))
    return optax.apply_updates(param, step), new_state


def _update_stack(parts: PerParameter, i: int, gradient: "_Gradient", scale: Any) -> tuple[Any, list[Array]]:
    """A stack of layers: multiply and update one layer in each round of a scan.

    What is updated is carried along and written in its place; as an output of the scan it would stand there twice.
    A round writes the layer that the last one computed, then reads its own: so XLA needs no copy of a stack.
    """
    part, is_stack = parts.of_one_layer(i)
    places = parts.state_of[i]
    read, write = jax.lax.dynamic_slice_in_dim, jax.lax.dynamic_update_slice_in_dim

    def one_layer(stacks_and_before, k_and_sites):
        (stacks, before), (k, sites) = stacks_and_before, k_and_sites
        stacks = [write(stack, layer, jnp.maximum(k - 1, 0), 0) for stack, layer in zip(stacks, before, strict=True)]
        param, *own = (read(stack, k, 1) for stack in stacks)
        now = dict(zip(places, own, strict=True))
        state = [
            now[at] if at in now else read(value, k, 1) if is_stack[at] else value
            for at, value in enumerate(parts.state)
        ]
        params = [*parts.params[:i], param, *parts.params[i + 1 :]]
        total = jnp.expand_dims(_Gradient(sites, gradient.weights).total(scale), 0)
        step, *own = part(state, params, total.astype(param.dtype))
        return (stacks, [optax.apply_updates(param, step), *own]), None

    stacks = [parts.params[i], *(parts.state[at] for at in places)]
    layers = len(stacks[0])
    before = [read(stack, 0, 1) for stack in stacks]
    (stacks, last), _ = jax.lax.scan(one_layer, (stacks, before), (jnp.arange(layers), gradient.layers()))
    param, *own = (write(stack, layer, layers - 1, 0) for stack, layer in zip(stacks, last, strict=True))
    return param, own


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Gradient:
    """One parameter's Σ over micro-batches of Σ_b w_b g_b.

    Attributes:
      sites: for each micro-batch a factor, or a gradient that is summed already.
      weights: for each of them (batch,) the w_b, or None for ones.
    """

    sites: list[Any]
    weights: list[Any]

    @property
    def is_stack(self) -> bool:
        return all(isinstance(site, Stacked) for site in self.sites) and self.sites[0].shape[0] > 1

    def layers(self) -> list[Factor]:
        """The sites, stacked along axis 0."""
        return [site.factor for site in self.sites]

    def total(self, scale: Any = None) -> Array:
        """scale times the gradient, in the dtype of the sum."""
        pairs = zip(self.sites, self.weights, strict=True)
        totals = [site.accumulate(w) if is_factor(site) else site for site, w in pairs]
        total = functools.reduce(operator.add, totals)
        return total if scale is None else total * scale.astype(accumulator(total))

    def sq_norm(self) -> Array:
        """The squared norm of the sum, with no more than one layer's gradient written out."""
        if self.is_stack:

            def add(total, sites):
                return total + _Gradient(sites, self.weights).sq_norm(), None

            return jax.lax.scan(add, jnp.zeros((), accumulator(self.sites[0].dtype)), self.layers())[0]
        if all(isinstance(site, Outer) for site in self.sites):
            rows = sum(math.prod(site.A.shape[:-1]) for site in self.sites)
            n_in, n_out = self.sites[0].shape
            # rows² (n_in + n_out) multiplications against rows n_in n_out; the room, rows² < n_in n_out, is then less.
            if rows * (n_in + n_out) <= n_in * n_out:
                return self._gram_sq_norm()
        total = self.total()
        return jnp.sum(jnp.square(total.astype(accumulator(total))))

    def _gram_sq_norm(self) -> Array:
        """‖AᵀΔ‖² = ⟨A Aᵀ, Δ Δᵀ⟩ over all pairs of rows."""
        A = jnp.concatenate([as_rows(site.A) for site in self.sites])
        pairs = zip(self.sites, self.weights, strict=True)
        Delta = jnp.concatenate([as_rows(weighted(site.Delta, w)) for site, w in pairs])
        dtype = accumulator(A, Delta)
        of_A, of_Delta = (jnp.matmul(side, side.T, preferred_element_type=dtype) for side in (A, Delta))
        return jnp.maximum(jnp.vdot(of_A, of_Delta), 0)  # rounding can leave it below zero, where rows cancel


def _gradients(where: str, factors: Any, params: Any, weights: Any = None) -> list[_Gradient]:
    """One for each parameter; `factors` is like the params, or a list of such."""
    structure = jax.tree.structure(params)
    batches = [factors] if jax.tree.structure(factors, is_leaf=is_factor) == structure else factors
    several = isinstance(batches, list | tuple) and len(batches) > 0
    if not several or any(jax.tree.structure(one, is_leaf=is_factor) != structure for one in batches):
        raise InputError(f"{where}: factors must have the structure of params, or be a list of such, got another tree")
    if not isinstance(weights, list | tuple):
        weights = [weights] * (len(batches) if weights is None else 1)
    if len(weights) != len(batches):
        expected = f"one array for each of {len(batches)} micro-batches"
        raise InputError(f"{where}: weights must be {expected}, got {len(weights)}")
    by_batch = [None if w is None else jnp.asarray(w) for w in weights]
    gradients = []
    leaves = zip(*(jax.tree.leaves(one, is_leaf=is_factor) for one in batches), strict=True)
    for (path, param), sites in zip(jax.tree_util.tree_leaves_with_path(params), leaves, strict=True):
        name = jax.tree_util.keystr(path)
        for site, w in zip(sites, by_batch, strict=True):
            check_shape(where, f"the gradient of {name}", site, param.shape, "as the parameter has it")
            if w is not None and not is_factor(site):
                raise InputError(f"{where}: weights need a factor for {name}, got a summed gradient, {describe(site)}")
            if w is not None:
                check_shape(where, "weights", w, (site.batch,), "one for each example")
        gradients.append(_Gradient([*sites], by_batch))
    return gradients


def _mean_over(where: str, gradients: Sequence[_Gradient]) -> Array:
    """1 / examples, of all micro-batches."""
    for gradient in gradients:
        if all(map(is_factor, gradient.sites)):
            return jnp.asarray(1 / sum(site.batch for site in gradient.sites), accumulator(gradient.sites[0].dtype))
    raise InputError(f"{where}: factors must have at least one factor that knows the batch, got summed gradients alone")
