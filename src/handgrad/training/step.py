"""One optax step on hand-written gradients."""

from collections.abc import Callable
from typing import Literal, Protocol, TypedDict, TypeVar, Unpack, overload

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from handgrad.backprop import Key, OfBatch, Weights, value_and_factors, value_and_parts, weighted_sum
from handgrad.checks import InputError, check_positive, describe
from handgrad.factors import is_factor
from handgrad.folds import per_example
from handgrad.folds.per_example import NoiseScale
from handgrad.layers import Layer, Loss
from handgrad.training.arguments import check_optimizer, check_options
from handgrad.training.gradients import By, gradient
from handgrad.training.parts import share_of
from handgrad.training.state import TrainState, noise_key
from handgrad.training.two_phase import update_by_sum

Scalar = Float[Array, ""]
V_co = TypeVar("V_co", covariant=True)


class Step(Protocol[V_co]):
    """What `train_step` and `two_phase_step` return: a pure function, not compiled; call it under jax.jit."""

    def __call__(
        self, state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
    ) -> tuple[TrainState, V_co]:
        """The next state, and the objective before the step. The noise is `key`'s, or without one the state's."""
        ...


class StepOptions(TypedDict, total=False):
    """How the gradient of a step is computed.

    Attributes:
      by: "hand" (the default), or "autodiff", which is jax.grad of the same objective.
      micro_batches: gradient accumulation: the batch is split into so many parts, one after the other, and their
        gradients are added up; the activations in memory are those of one part. A part takes every micro_batches-th
        example, so that the parts of a sharded batch lie on all of its devices. Layers that couple the examples see one
        part at a time.
      compute_dtype: the dtype of both passes, such as jnp.bfloat16; parameters, gradients, the optimizer and (unless
        the prediction carries parameters) the loss stay in the parameters' dtype.
    """

    by: By
    micro_batches: int
    compute_dtype: DTypeLike | None


@overload
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    check_finite: bool = False,
    noise_scale: Literal[False] = False,
    **options: Unpack[StepOptions],
) -> Step[Scalar]: ...
@overload
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    check_finite: bool = False,
    noise_scale: Literal[True],
    per_leaf: Literal[False] = False,
) -> Step[tuple[Scalar, NoiseScale]]: ...
@overload
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    check_finite: bool = False,
    noise_scale: bool,
    per_leaf: bool = False,
    **options: Unpack[StepOptions],
) -> Step[PyTree]: ...
def train_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    check_finite: bool = False,
    noise_scale: bool = False,
    per_leaf: bool = False,
    **options: Unpack[StepOptions],
) -> Step[PyTree]:
    """One step: gradients by hand, the update by optax.

    Weights w of a batch make the objective Σ_b w_b loss_b, a sum; divide them by their sum for the weighted mean, as
    `fit` does. Without weights it is the mean.

    >>> import handgrad as hg, jax, optax
    >>> model, optimizer = hg.linear(1), optax.sgd(0.1)
    >>> x = jax.numpy.ones((4, 2))
    >>> state = hg.training.init_state(model.init(jax.random.key(0), x), optimizer)
    >>> step = jax.jit(hg.training.train_step(model, hg.squared_error(), optimizer))
    >>> state, value = step(state, x, x[:, :1])
    >>> int(state.step), value.shape
    (1, ())

    Args:
      optimizer: an optax transformation. One that takes extra arguments (lbfgs, polyak_sgd, reduce_on_plateau) is given
        the `value`, the `grad` and the `value_fn` of this batch.
      check_finite: True takes no step where the value or the gradient has an infinity or a NaN: parameters and
        optimizer state stay, and the value returned is not finite.
      noise_scale: True estimates the gradient's noise scale from the factors of the same backward pass, for a batch
        without weights, by hand and in one piece.
      per_leaf: True estimates it for each parameter separately.
      **options: `by`, `micro_batches`, `compute_dtype`: see StepOptions.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value); with noise_scale (state, (value, NoiseScale)), or
      with per_leaf a NoiseScale in each parameter's place.
    Raises:
      InputError: noise_scale with other options; at trace time, as `value_and_grad`; with noise_scale as
        `hg.noise_scale`, and for weights; with micro_batches for a batch that they don't divide.
    """
    check_options("train_step", options, {})
    check_optimizer("train_step", optimizer)
    if noise_scale and options:
        raise InputError(f"train_step: noise_scale must be without {', '.join(options)}, got both")
    if noise_scale:
        of_batch = _with_noise_scale(model, loss, per_leaf)
    else:
        of_batch = gradient(model, loss, where="train_step", **options)
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        key = noise_key(state) if key is None else key
        value, grads = of_batch(state.params, x, target, weights, key)

        scalar = value[0] if noise_scale else value  # with a noise scale beside it
        extra = {"value": scalar, "grad": grads, "value_fn": _value_fn(of_batch, x, target, weights, key)}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        if check_finite:
            finite = _is_finite((scalar, grads))
            old = state.params, state.opt_state
            params, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), (params, opt_state), old)
            scalar = jnp.where(finite | ~jnp.isfinite(scalar), scalar, jnp.nan)
            value = (scalar, value[1]) if noise_scale else scalar
        return TrainState(params, opt_state, state.step + 1, state.key), value

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
        key = noise_key(state) if key is None else key
        value, parts = gradient(state.params, x, target, weights, key)
        params, opt_state = update_by_sum(parts, state.params, state.opt_state, optimizer, clip_global_norm)
        return TrainState(params, opt_state, state.step + 1, state.key), value

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


def _value_fn(
    of_batch: OfBatch[tuple[PyTree, PyTree]], x: PyTree, target: PyTree, weights: Weights, key: Key
) -> Callable[[PyTree], Scalar]:
    """params -> the value of this batch, for line searches: its gradient, too, is that of the step."""
    value_fn = jax.custom_vjp(lambda params: of_batch(params, x, target, weights, key)[0])
    value_fn.defvjp(
        lambda params: of_batch(params, x, target, weights, key),
        lambda grads, dvalue: (jax.tree.map(lambda g: (dvalue * g).astype(g.dtype), grads),),
    )
    return value_fn


def _is_finite(tree: PyTree[Array]) -> Array:
    """Whether no number has an infinity or a NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
