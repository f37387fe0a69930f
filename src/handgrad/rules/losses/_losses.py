"""What losses share: one number for each example, whatever the axes in between, and the target's cotangent."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from handgrad.checks import check_array, check_cotangent, check_target
from handgrad.factors.base import accumulator
from handgrad.rules._wide import wide

Prediction = Float[Array, "batch *n"]
Target = Real[Array, "batch *n"]  # integers have no cotangent
Losses = Float[Array, " batch"]


def checked(where: str, name: str, A: Prediction, Y: Target) -> tuple[Array, ...]:
    """A prediction, which errors call by this name, and a target of its shape, both `wide`."""
    check_array(where, f"the {name}", A, min_ndim=1)
    check_target(where, Y, A.shape, f"like the {name}")
    return wide(A, Y)


def per_example(C: Array, dtype: np.dtype) -> Losses:
    """(batch, ...) summed over all axes but the first, in float32 at least, and then rounded to `dtype`."""
    return jnp.sum(C, axis=tuple(range(1, C.ndim))).astype(dtype)


def check_losses_cotangent(where: str, dC: Losses, prediction: Array, dtype: np.dtype) -> None:
    """`dC` has one number of this dtype for each example of the prediction."""
    check_cotangent(where, dC, prediction.shape[:1], dtype, name="dC", of="C")


def to_elements(where: str, dC: Losses, like: Array, dtype: np.dtype) -> Array:
    """dC (batch,), checked, as (batch, 1, ..., 1): against an array of the prediction's rank."""
    check_losses_cotangent(where, dC, like, dtype)
    return jnp.expand_dims(dC.astype(accumulator(dtype)), tuple(range(1, like.ndim)))


def pulled(dC: Array, slope: Array, to: Array, finite: bool = False) -> Array:
    """dC ∘ slope in the dtype of the argument that it belongs to; `finite`: clipped to that dtype's largest number.

    An example whose dC is 0 has a cotangent of 0, also where its slope is infinite or NaN.
    """
    d = jnp.where(dC == 0, 0, dC * slope)
    if finite:
        largest = float(jnp.finfo(to.dtype).max)
        d = jnp.clip(d, -largest, largest)
    return d.astype(to.dtype)


def target_cotangent(dC: Array, slope: Array, Y: Array) -> Array | None:
    """The same of the target; None for a target of integers."""
    return pulled(dC, slope, Y) if jnp.issubdtype(Y.dtype, jnp.floating) else None


def counted(weight: Array, cost: Array) -> Array:
    """The cost, but 0 where it is infinite and its weight is 0: 0 log 0 = 0."""
    return jnp.where((weight == 0) & jnp.isinf(cost), 0, cost)


def length_and_direction(D: Float[Array, "*rest n"]) -> tuple[Float[Array, "*rest 1"], Float[Array, "*rest n"]]:
    """‖d‖ along the last axis and d / ‖d‖, 0 where d is 0. No square overflows; and no root of 0 is taken, whose slope
    is infinite."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(D), axis=-1, keepdims=True, initial=0))  # cancels
    size = jnp.where(size == 0, 1, jnp.minimum(size, 1 / float(jnp.finfo(D.dtype).tiny)))
    squares = jnp.sum((D / size) ** 2, axis=-1, keepdims=True)
    differs = squares > 0
    length = jnp.sqrt(jnp.where(differs, squares, 1))
    return jnp.where(differs, size * length, 0), jnp.where(differs, D / size / length, 0)
