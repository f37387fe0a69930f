"""One optax step on hand-written gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from handgrad.backprop import value_and_factors, value_and_grad, weighted_sum
from handgrad.checks import InputError, describe
from handgrad.factors import is_factor
from handgrad.folds import per_example
from handgrad.layers import Layer, Loss
from handgrad.training.two_phase import update

Array = jax.Array


class TrainState(NamedTuple):
    """All that training carries from one step to the next: a pytree of arrays.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
      step: () int32, steps taken.
    """

    params: Any
    opt_state: Any
    step: Array


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    noise_scale: bool = False,
    per_leaf: bool = False,
) -> Callable[..., Any]:
    """One step: gradients by hand, the update by optax.

    Args:
      model, loss, optimizer: what to compose.
      noise_scale: True estimates the gradient's noise scale from the factors of the same backward pass, for a batch
        without weights.
      per_leaf: True estimates it for each parameter by itself.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value), value being the objective before the step; with
      noise_scale (state, (value, NoiseScale)), or a NoiseScale in each parameter's place. Pure and
      not compiled: call it under jax.jit.
    Raises:
      InputError: at trace time, as `value_and_grad`; with noise_scale as `per_example.noise_scale`, and weights.
    """
    gradient = _with_noise_scale(model, loss, per_leaf) if noise_scale else value_and_grad(model, loss)

    def step(state: TrainState, x, target, weights=None, key=None) -> tuple[TrainState, Any]:
        value, grads = gradient(state.params, x, target, weights, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1), value

    return step


def two_phase_step(
    model: Layer, loss: Loss, optimizer: optax.GradientTransformation, clip_global_norm: float | None = None
) -> Callable[..., Any]:
    """`train_step` without a full gradient in memory: factors first, then one parameter, one layer at a time.

    Args:
      clip_global_norm: C, positive: the gradient times min(1, C / its norm); None doesn't clip.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value), as `train_step`. Compile it with `donate_argnums=0`:
      new parameters then stand where the old ones stood.
    Raises:
      InputError: at trace time, as `value_and_factors` and `update`.
    Source: docs/two_phase.md
    """
    gradient = value_and_factors(model, loss)

    def step(state: TrainState, x, target, weights=None, key=None) -> tuple[TrainState, Array]:
        losses, factors = gradient(state.params, x, target, key)
        params, opt_state = update(factors, state.params, state.opt_state, optimizer, clip_global_norm, weights)
        return TrainState(params, opt_state, state.step + 1), weighted_sum(losses, weights)

    return step


def _with_noise_scale(model: Layer, loss: Loss, per_leaf: bool) -> Callable[..., Any]:
    """`value_and_grad` whose value is (objective, NoiseScale)."""
    losses_and_factors = value_and_factors(model, loss)

    def gradient(params, x, target, weights=None, key=None):
        if weights is not None:
            raise InputError(f"train_step: noise_scale takes every example alike, got weights {describe(weights)}")
        losses, factors = losses_and_factors(params, x, target, key)
        scale = per_example.noise_scale(factors, per_leaf=per_leaf)
        # These sums are in scale too: the compiled program multiplies once.
        grads = jax.tree.map(lambda f: (f.accumulate() / f.batch).astype(f.dtype), factors, is_leaf=is_factor)
        return (weighted_sum(losses, None), scale), grads

    return gradient
