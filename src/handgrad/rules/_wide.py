"""The dtype that rules of several steps compute in: half precision overflows at 65504, and a difference of rounded
numbers has lost its digits. They upcast, compute, and round once at the end."""

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Shaped

from handgrad.factors.base import accumulator


def wide(*arrays: Shaped[Array, "..."]) -> tuple[Inexact[Array, "..."], ...]:
    """The arrays in their common dtype, float32 at least; integers as numbers."""
    dtype = accumulator(*arrays)
    return tuple(jnp.asarray(a, dtype) for a in arrays)
