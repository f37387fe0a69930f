"""What losses share: one number for each example, whatever the axes in between; a target's own cotangent."""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.shapes import check_cotangent

Array = jax.Array


def per_example(C: Array) -> Array:
    """(batch, ...) summed over all axes but the first."""
    return jnp.sum(C, axis=tuple(range(1, C.ndim)))


def to_elements(where: str, dC: Array, like: Array, dtype: Any) -> Array:
    """dC (batch,), checked, as (batch, 1, ..., 1): against an array of the prediction's rank."""
    check_cotangent(where, dC, like.shape[:1], dtype, name="dC", of="C")
    return jnp.expand_dims(dC, tuple(range(1, like.ndim)))


def target_cotangent(dY: Array, Y: Array) -> Array | None:
    """dY in Y's dtype; integers have none."""
    return dY.astype(Y.dtype) if jnp.issubdtype(Y.dtype, jnp.floating) else None
