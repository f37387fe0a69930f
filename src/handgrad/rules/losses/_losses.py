"""What losses share: one number for each example, whatever the axes in between; a target's own cotangent.

A loss computes in float32 at least and rounds once, at the end: half precision overflows at 65504, and a difference of
rounded numbers has lost its digits.
"""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.checks import check_cotangent
from handgrad.factors.base import accumulator

Array = jax.Array


def wide(*arrays: Array) -> list[Array]:
    """The arrays in their common dtype, float32 at least; integers as numbers."""
    dtype = accumulator(*arrays)
    return [a.astype(dtype) for a in arrays]


def per_example(C: Array, dtype: Any = None) -> Array:
    """(batch, ...) summed over all axes but the first; in this dtype, or C's."""
    return jnp.sum(C, axis=tuple(range(1, C.ndim))).astype(C.dtype if dtype is None else dtype)


def to_elements(where: str, dC: Array, like: Array, dtype: Any) -> Array:
    """dC (batch,), checked, as (batch, 1, ..., 1): against an array of the prediction's rank."""
    check_cotangent(where, dC, like.shape[:1], dtype, name="dC", of="C")
    return jnp.expand_dims(dC.astype(accumulator(dtype)), tuple(range(1, like.ndim)))


def pulled(dC: Array, slope: Array, to: Array, finite: bool = False) -> Array:
    """dC ∘ slope in the dtype of the argument that it belongs to; `finite`: no larger than its largest number.

    An example whose dC is 0 has a cotangent of 0, also where its slope is infinite or NaN.
    """
    d = jnp.where(dC == 0, 0, dC * slope)
    if finite:
        largest = float(jnp.finfo(to.dtype).max)
        d = jnp.clip(d, -largest, largest)
    return d.astype(to.dtype)


def target_cotangent(dC: Array, slope: Array, Y: Array) -> Array | None:
    """The same of the target; integers have none."""
    return pulled(dC, slope, Y) if jnp.issubdtype(Y.dtype, jnp.floating) else None


def counted(weight: Array, cost: Array) -> Array:
    """The cost, but 0 where it is infinite and its weight is 0: 0 log 0 = 0."""
    return jnp.where((weight == 0) & jnp.isinf(cost), 0, cost)
