"""One optax step on hand-written gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from handgrad.backprop import value_and_grad
from handgrad.layers import Layer, Loss

Array = jax.Array


class TrainState(NamedTuple):
    """All that training carries from one step to the next: a pytree of arrays.

    Attributes:
      params: the model's parameters.
      opt_state: the optimiser's state.
      step: () int32, steps taken.
    """

    params: Any
    opt_state: Any
    step: Array


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def train_step(model: Layer, loss: Loss, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One step: gradients by hand, the update by optax.

    Returns:
      (state, x, target, weights=None, key=None) -> (state, value), value being the objective before the step. Pure;
      to be compiled by whoever calls it.
    Raises:
      InputError: at trace time, as `value_and_grad`.
    """
    gradient = value_and_grad(model, loss)

    def step(state: TrainState, x, target, weights=None, key=None) -> tuple[TrainState, Array]:
        value, grads = gradient(state.params, x, target, weights, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1), value

    return step
