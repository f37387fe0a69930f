"""One optax step on hand-written gradients."""

from typing import Literal, NamedTuple, Protocol, TypeVar, overload

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from handgrad.backprop import Key, OfBatch, Weights, value_and_factors, value_and_grad, value_and_parts, weighted_sum
from handgrad.checks import InputError, check_positive, describe
from handgrad.factors import is_factor
from handgrad.folds import per_example
from handgrad.folds.per_example import NoiseScale
from handgrad.layers import Layer, Loss
from handgrad.training.parts import share_of
from handgrad.training.two_phase import update_by_sum

Scalar = Float[Array, ""]
V_co = TypeVar("V_co", covariant=True)


class TrainState(NamedTuple):
    """Everything that training carries from one step to the next: a pytree of arrays.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
      step: steps taken.
    """

    params: PyTree
    opt_state: optax.OptState
    step: Int[Array, ""]


class Step(Protocol[V_co]):
    """What `train_step` and `two_phase_step` return: a pure function, not compiled; call it under jax.jit."""

    def __call__(
        self, state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
    ) -> tuple[TrainState, V_co]:
        """The next state, and the objective before the step."""
        ...


def init_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


@overload
def train_step(
    model: Layer, loss: Loss, optimizer: optax.GradientTransformation, *, noise_scale: Literal[False] = False
) -> Step[Scalar]: ...
@overload
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    noise_scale: Literal[True],
    per_leaf: Literal[False] = False,
) -> Step[tuple[Scalar, NoiseScale]]: ...
@overload
def train_step(
    model: Layer, loss: Loss, optimizer: optax.GradientTransformation, *, noise_scale: bool, per_leaf: bool = False
) -> Step[PyTree]: ...
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    noise_scale: bool = False,
    per_leaf: bool = False,
) -> Step[PyTree]:
    """One step: gradients by hand, the update by optax.

    >>> import handgrad as hg, jax, optax
    >>> model, optimizer = hg.linear(1), optax.sgd(0.1)
    >>> x = jax.numpy.ones((4, 2))
    >>> state = hg.training.init_state(model.init(jax.random.key(0), x), optimizer)
    >>> step = jax.jit(hg.training.train_step(model, hg.squared_error(), optimizer))
    >>> state, value = step(state, x, x[:, :1])
    >>> int(state.step), value.shape
    (1, ())

    Args:
      noise_scale: True estimates the gradient's noise scale from the factors of the same backward pass, for a batch
        without weights.
      per_leaf: True estimates it for each parameter separately.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value); with noise_scale (state, (value, NoiseScale)), or
      with per_leaf a NoiseScale in each parameter's place.
    Raises:
      InputError: at trace time, as `value_and_grad`; with noise_scale as `hg.noise_scale`, and for weights.
    """
    gradient = _with_noise_scale(model, loss, per_leaf) if noise_scale else value_and_grad(model, loss)

    def step(state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        value, grads = gradient(state.params, x, target, weights, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1), value

    return step


def two_phase_step(
    model: Layer, loss: Loss, optimizer: optax.GradientTransformation, clip_global_norm: float | None = None
) -> Step[Scalar]:
    """`train_step` without the full gradient in memory: factors first, then one parameter, one layer at a time.

    Args:
      clip_global_norm: C, positive: the gradient times min(1, C / its norm); None doesn't clip.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value). Compile it with `donate_argnums=0`: the parameters
      and the optimizer's state are then updated in-place.
    Raises:
      InputError: clip_global_norm is not positive; at trace time, as `value_and_grad` and `update`.
    Source: docs/two_phase.md
    """
    if clip_global_norm is not None:
        check_positive("two_phase_step", "clip_global_norm", clip_global_norm)
    gradient = value_and_parts("two_phase_step", model, loss, share_of(clip_global_norm is not None))

    def step(state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        value, parts = gradient(state.params, x, target, weights, key)
        params, opt_state = update_by_sum(parts, state.params, state.opt_state, optimizer, clip_global_norm)
        return TrainState(params, opt_state, state.step + 1), value

    return step


def _with_noise_scale(model: Layer, loss: Loss, per_leaf: bool) -> OfBatch[tuple[PyTree, PyTree]]:
    """`value_and_grad` whose value is (objective, NoiseScale)."""
    losses_and_factors = value_and_factors(model, loss)

    def gradient(params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        if weights is not None:
            raise InputError(f"train_step: noise_scale takes every example alike, got weights {describe(weights)}")
        losses, factors = losses_and_factors(params, x, target, key)
        scale = per_example.noise_scale(factors, per_leaf=per_leaf)
        # The noise scale has the same sums: the compiled program computes each product once.
        grads = jax.tree.map(lambda f: (f.accumulate() / f.batch).astype(f.dtype), factors, is_leaf=is_factor)
        return (weighted_sum(losses, None), scale), grads

    return gradient
