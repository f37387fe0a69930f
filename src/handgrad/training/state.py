"""What training carries from one step to the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from handgrad.backprop import Key


class TrainState(NamedTuple):
    """Everything that training carries from one step to the next: a pytree of arrays.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
      step: steps taken.
      key: of the noise of layers such as dropout, and of the order of examples in `fit`; it stays the same, and each
        step folds its number in. None draws no noise.
    """

    params: PyTree
    opt_state: optax.OptState
    step: Int[Array, ""]
    key: Key = None


def init_state(params: PyTree, optimizer: optax.GradientTransformation, key: Key = None) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), key)


def noise_key(state: TrainState) -> Key:
    """The key of this step's noise."""
    return None if state.key is None else jax.random.fold_in(state.key, state.step)
