"""The gradient of a step: by hand or by autodiff, in another dtype, in micro-batches."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from handgrad import meshes
from handgrad.backprop import Key, OfBatch, Weights, objective, same_batch, value_and_grad
from handgrad.checks import InputError, check_choice, check_count
from handgrad.layers import Layer, Loss

By = Literal["hand", "autodiff"]
OPTIONS = ("by", "micro_batches", "compute_dtype")
Gradient = OfBatch[tuple[PyTree, PyTree]]


def gradient(
    model: Layer,
    loss: Loss,
    *,
    by: By = "hand",
    micro_batches: int = 1,
    compute_dtype: DTypeLike | None = None,
    where: str = "gradient",
) -> Gradient:
    """`value_and_grad`, or `jax.value_and_grad` of the objective, for a step of training.

    Args:
      by: "hand" or "autodiff".
      micro_batches: gradient accumulation: the batch is split into so many parts, one after the other, and their
        gradients are added up; the memory is that of one part. The parts take every micro_batches-th example, so that
        each part of a sharded batch lies on all of its devices. Layers that couple the examples see one part at a time.
      compute_dtype: the dtype of both passes, such as jnp.bfloat16. Parameters, gradients and the loss keep theirs.
      where: the function that errors name.
    Returns:
      (params, x, target, weights=None, key=None) -> (value, grads), grads in the parameters' dtypes.
    Raises:
      InputError: `by`, micro_batches or compute_dtype makes no sense; at trace time, a batch that micro_batches doesn't
        divide.
    """
    check_choice(where, "by", by, ("hand", "autodiff"))
    check_count(where, "micro_batches", micro_batches)
    if compute_dtype is not None and not _is_floating(compute_dtype):
        raise InputError(f"{where}: compute_dtype must be a floating-point dtype, got {compute_dtype!r}")
    if compute_dtype is not None:
        model = _with_output_in_float32(model, compute_dtype) if loss.through is None else model
    of_batch = value_and_grad(model, loss) if by == "hand" else jax.value_and_grad(objective(model, loss))
    if compute_dtype is not None:
        of_batch = _computed_in(of_batch, compute_dtype)
    return of_batch if micro_batches == 1 else _accumulated(of_batch, micro_batches, where)


def _is_floating(dtype: DTypeLike) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:  # no dtype at all
        return False


def _computed_in(of_batch: Gradient, dtype: DTypeLike) -> Gradient:
    """The gradient at parameters and inputs rounded to `dtype`."""

    def rounded(params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        value, grads = of_batch(_as(dtype, params), _as(dtype, x), target, weights, key)
        return value, jax.tree.map(lambda g, p: g.astype(jnp.asarray(p).dtype), grads, params)

    return rounded


def _with_output_in_float32(model: Layer, dtype: DTypeLike) -> Layer:
    """The model in `dtype`, its predictions not rounded again by what the loss does with them. (Where a prediction
    carries parameters, the loss multiplies, and runs in `dtype` too.)"""

    def forward(params: PyTree, x: PyTree, key: Key = None):
        y, residuals = model.forward(params, x, key)
        return _as(jnp.promote_types(dtype, jnp.float32), y), residuals

    def backward(residuals: PyTree, dy: PyTree):
        return model.backward(residuals, _as(dtype, dy))

    return Layer(model.init, forward, backward, model.couples)


def _as(dtype: DTypeLike, tree: PyTree) -> PyTree:
    """Floating-point arrays in this dtype; all others as they are."""
    arrays = jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, arrays)


def _accumulated(of_batch: Gradient, parts: int, where: str) -> Gradient:
    """The sum of the gradients of the parts of a batch."""

    def split(a: Array) -> Array:
        spec = meshes.spec(a)
        return meshes.along([None, *spec], lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), a)

    def accumulated(params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        examples = same_batch(where, x, target)
        if examples % parts:
            raise InputError(f"{where}: micro_batches must divide the batch of {examples}, got {parts}")
        dtype = jnp.promote_types(jnp.float32, jnp.result_type(*jax.tree.leaves(params)))
        weights = jnp.full(examples, 1 / examples, dtype) if weights is None else jnp.asarray(weights)
        params, x, target = jax.tree.map(jnp.asarray, (params, x, target))

        def one(total: tuple[Array, PyTree], part: PyTree):
            number, of_part = part
            found = of_batch(params, *of_part, key=None if key is None else jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, found), None

        batch = jax.tree.map(split, (x, target, weights))
        value = jax.eval_shape(of_batch, params, x, target, weights, key)[0]
        zeros = jnp.zeros(value.shape, value.dtype), jax.tree.map(jnp.zeros_like, params)
        return meshes.scan(one, zeros, (jnp.arange(parts), batch))[0]

    return accumulated
