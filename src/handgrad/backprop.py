"""The story on one page: a model and a loss become values, gradients, and factors.

Every function here takes (params, x, target, weights, key). Weights are the w_b of Σ_b w_b loss_b. None stands for
1 / batch each, the mean; nothing else is normalized behind the caller's back. Padding of a batch gets weight 0, and a
valid target: 0 times NaN is NaN. Where a layer or the loss couples the examples (batch_norm, info_nce), padding still
enters the losses of the others. Without a key, layers draw no noise.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_shape, describe
from handgrad.factors import Factor, materialize as materialize
from handgrad.factors.trees import with_mask
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import check_layer, check_loss, passed_back
from handgrad.layers.sums import sums_only, with_sums
from handgrad.meshes import Types, gathered
from handgrad.rule import Rule, differentiable

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
Weights = Array | np.ndarray | None
Key = PRNGKeyArray | None


class OfBatch(Protocol[R_co]):
    """A function of parameters and a batch, whose examples are weighted."""

    def __call__(self, params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None) -> R_co: ...


class OfExamples(Protocol[R_co]):
    """A function of parameters and a batch, each of whose examples counts alone."""

    def __call__(self, params: PyTree, x: PyTree, target: PyTree, key: Key = None) -> R_co: ...


class OfLayer(Protocol):
    """A layer's forward pass."""

    def __call__(self, params: PyTree, x: PyTree, key: Key = None) -> PyTree: ...


def objective(model: Layer, loss: Loss, *, has_aux: bool = False) -> OfBatch[PyTree]:
    """The scalar function that autodiff differentiates: `jax.value_and_grad(objective(model, loss))`.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> hg.objective(hg.tanh(), hg.squared_error())((), jnp.zeros((2, 1)), jnp.ones((2, 1)))
    Array(1., dtype=float32)

    Args:
      model, loss: what to compose.
      has_aux: True returns (value, prediction).
    Returns:
      (params, x, target, weights=None, key=None) -> value, a scalar of float32 at least.
    Raises:
      InputError: at trace time, batches that don't match or are empty, and whatever the layers and the loss raise.
    """
    check_layer("objective", model)
    check_loss("objective", loss)

    def value(params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None) -> PyTree:
        params, x, target, w = check_batches("objective", params, x, target, weights)
        prediction, _ = model.forward(params, x, key)
        losses, _ = loss.forward(prediction, target)
        total = weighted_sum(losses, w)
        return (total, prediction) if has_aux else total

    return value


def value_and_grad(
    model: Layer, loss: Loss, *, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> OfBatch[tuple[PyTree, PyTree]]:
    """The same value, and its gradient by hand: a drop-in for `jax.value_and_grad(objective(model, loss))`.

    Weights w give Σ_b w_b loss_b, a sum: divide them by their sum for the weighted mean. None gives the mean.

    Args:
      model, loss: what to compose.
      argnums: 0 for the gradient of params, 1 for that of x, or a sequence of these.
      has_aux: True returns ((value, prediction), grads).
    Returns:
      (params, x, target, weights=None, key=None) -> (value, grads); grads have params' structure, shapes and dtypes.
    Raises:
      InputError: argnums names anything else; at trace time, as `objective`.
    """
    return _value_and_grad("value_and_grad", model, loss, argnums, has_aux)


def grad(model: Layer, loss: Loss, *, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> OfBatch[PyTree]:
    """The gradient by hand: a drop-in for `jax.grad(objective(model, loss))`.

    Returns:
      (params, x, target, weights=None, key=None) -> grads, or (grads, prediction) with has_aux. Otherwise as
      `value_and_grad`.
    """
    with_value = _value_and_grad("grad", model, loss, argnums, has_aux)

    def grads_only(params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None) -> PyTree:
        value, grads = with_value(params, x, target, weights, key)
        return (grads, value[1]) if has_aux else grads

    return grads_only


def _value_and_grad(
    where: str, model: Layer, loss: Loss, argnums: int | Sequence[int], has_aux: bool
) -> OfBatch[tuple[PyTree, PyTree]]:
    """The pass itself; `where` is the function that errors name."""
    check_layer(where, model)
    check_loss(where, loss)
    wanted = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    if not wanted or any(argnum not in (0, 1) for argnum in wanted):
        raise InputError(f"{where}: argnums must be 0 (params), 1 (x) or a sequence of these, got {argnums!r}")

    def value_and_grads(
        params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
    ) -> tuple[PyTree, PyTree]:
        of_params, of_x = Types.of(params), Types.of(x)
        params, x, target, w = check_batches(where, params, x, target, weights)
        prediction, model_residuals = model.forward(params, x, key)
        losses, dprediction = losses_and_cotangent(loss, prediction, target, w)
        dx, factors = model.backward(sums_only(model_residuals), dprediction)
        total = weighted_sum(losses, w)
        value = (total, prediction) if has_aux else total
        grads = tuple(
            of_params.given_to(materialize(factors)) if argnum == 0 else of_x.given_to(dx) for argnum in wanted
        )
        return value, grads if isinstance(argnums, Sequence) else grads[0]

    return value_and_grads


def value_and_factors(model: Layer, loss: Loss) -> OfExamples[tuple[Float[Array, " batch"], PyTree[Factor]]]:
    """Each example's loss, and the gradient not yet multiplied: factor by factor, unweighted.

    Returns:
      (params, x, target, key=None) -> (losses (batch,), factors); factors have params' structure, and
      `materialize(factors, weights)` is the gradient of Σ_b weights_b losses_b, for any weights, without a second pass.
      In and before a layer that couples the examples, and everywhere under a loss that does, they are Coupled: the
      unweighted sum alone has a meaning.
    Raises:
      InputError: at trace time, as `objective`.
    """
    check_layer("value_and_factors", model)
    check_loss("value_and_factors", loss)

    def losses_and_factors(params: PyTree, x: PyTree, target: PyTree, key: Key = None) -> tuple[Array, PyTree[Factor]]:
        params, x, target, _ = check_batches("value_and_factors", params, x, target, None)
        prediction, model_residuals = model.forward(params, x, key)
        losses, loss_residuals = loss.forward(prediction, target)
        dprediction = loss.backward(loss_residuals, jnp.ones_like(losses))
        return losses, factors_of(model, loss, model_residuals, dprediction, loss_residuals)

    return losses_and_factors


def value_and_parts(
    where: str, model: Layer, loss: Loss, share: float
) -> OfBatch[tuple[Array, PyTree[Factor | Array]]]:
    """`value_and_grad` with factors for gradients: those of Σ_b w_b loss_b, the w_b being in their cotangents.

    Args:
      where: the function that errors name.
      share: layers that loop over others return sums in the place of factors whose sum is at most so many times as
        large as they are.
    """
    check_layer(where, model)
    check_loss(where, loss)

    def of_batch(
        params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
    ) -> tuple[Array, PyTree[Factor | Array]]:
        params, x, target, w = check_batches(where, params, x, target, weights)
        prediction, residuals = model.forward(params, x, key)
        losses, dprediction = losses_and_cotangent(loss, prediction, target, w)
        _, factors = model.backward(with_sums(residuals, share), dprediction)
        return weighted_sum(losses, w), factors

    return of_batch


def losses_and_cotangent(
    loss: Loss, prediction: PyTree, target: PyTree, weights: Array | None
) -> tuple[Float[Array, " batch"], PyTree]:
    """Each example's loss, and the cotangent of the prediction under Σ_b w_b loss_b."""

    def cotangent(losses: Array | jax.ShapeDtypeStruct) -> Array:
        return mean_weights(losses) if weights is None else weights.astype(losses.dtype)

    if loss.at_once is not None:
        losses, _ = jax.eval_shape(loss.forward, prediction, target)
        return loss.at_once(prediction, target, cotangent(losses))
    losses, residuals = loss.forward(prediction, target)
    return losses, loss.backward(residuals, cotangent(losses))


def factors_of(
    model: Layer, loss: Loss, residuals: PyTree, dprediction: PyTree, loss_residuals: PyTree
) -> PyTree[Factor]:
    """The factors of one backward pass, Coupled where a loss depends on other examples through them. Where the loss
    says which tokens of the prediction have one, only these count."""
    _, factors = model.backward(residuals, dprediction)
    factors = passed_back(model, factors, loss.couples)[0]
    counts = None if loss.counts is None else loss.counts(loss_residuals)
    return factors if counts is None else with_mask(factors, counts)


def custom_vjp(layer: Layer) -> OfLayer:
    """A layer as a function that any JAX, Flax or Equinox program can differentiate: its gradients are the
    hand-written ones.

    Returns:
      f(params, x, key=None) -> y, under grad, jit, vmap, scan and checkpoint (remat).
    """
    if isinstance(layer, Rule):
        raise InputError(f"custom_vjp: expected a Layer, got a Rule: call {layer.__name__} itself, jax.grad is by hand")
    check_layer("custom_vjp", layer)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree, None]:
        dx, factors = layer.backward(sums_only(residuals), dy)
        return factors, dx, None

    of_layer = differentiable(layer.forward, backward)

    def f(params: PyTree, x: PyTree, key: Key = None) -> PyTree:
        return of_layer(params, x, key)

    return f


def custom_vjp_rule(
    forward: Callable[..., tuple[T, PyTree]], backward: Callable[..., tuple[PyTree, ...]], **options: object
) -> Rule[..., T]:
    """`Rule(forward, backward).with_options(**options)`: a pair of passes as a function that any JAX program can
    differentiate."""
    return Rule(forward, backward).with_options(**options)


def mean_weights(losses: Float[Array, " batch"] | jax.ShapeDtypeStruct) -> Float[Array, " batch"]:
    """1 / batch for each example."""
    return jnp.full_like(losses, 1 / losses.shape[0])


def weighted_sum(losses: Float[Array, " batch"], weights: Array | None) -> Float[Array, ""]:
    """Σ_b w_b loss_b, in float32 at least."""
    dtype = jnp.promote_types(losses.dtype, jnp.float32)
    weights = mean_weights(losses) if weights is None else weights
    return jnp.sum(weights.astype(dtype) * losses.astype(dtype))


def check_batches(
    where: str, params: PyTree, x: PyTree, target: PyTree, weights: Weights
) -> tuple[PyTree, PyTree, PyTree, Array | None]:
    """The four arguments as JAX arrays; x, target and weights are of one batch, and it isn't empty."""
    examples = same_batch(where, x, target)
    if examples == 0:
        raise InputError(f"{where}: x must have at least one example, got an empty batch")
    if weights is not None:
        check_shape(where, "weights", weights, (examples,), "one for each example")
    params, x, target = jax.tree.map(jnp.asarray, (params, x, target))
    return gathered(params, x), x, target, None if weights is None else jnp.asarray(weights)


def same_batch(where: str, x: PyTree, target: PyTree) -> int:
    """The number of examples of x and target, along axis 0 of every leaf."""
    sizes = [_batch(where, name, value) for name, value in (("x", x), ("target", target))]
    if sizes[0] != sizes[1]:
        raise InputError(f"{where}: x and target must have the same batch, got {sizes[0]} and {sizes[1]} examples")
    return sizes[0]


def _batch(where: str, name: str, value: PyTree) -> int:
    """The length of axis 0 of every leaf."""
    sizes: dict[int, str] = {}
    for path, leaf in jax.tree.leaves_with_path(value):
        if not getattr(leaf, "shape", ()):
            hint = (
                ""
                if hasattr(leaf, "shape")
                else "; a list is a pytree of its elements, np.asarray makes an array of it"
            )
            raise InputError(f"{where}: {name} must have a batch axis in front, got {describe(leaf)}{hint}")
        sizes.setdefault(leaf.shape[0], name + jax.tree_util.keystr(path))
    if not sizes:
        raise InputError(f"{where}: {name} must be an array with a batch axis in front, got {describe(value)}")
    if len(sizes) > 1:
        found = " and ".join(f"{size} in {leaf}" for size, leaf in sizes.items())
        raise InputError(f"{where}: {name} must have as many examples in every leaf, got {found}")
    return next(iter(sizes))
