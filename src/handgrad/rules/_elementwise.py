"""What activations and gated units share: the dtype to compute in, and a sigmoid with all digits on both sides."""

import jax
import jax.numpy as jnp

from handgrad.factors.base import accumulator

Array = jax.Array


def wide(X: Array) -> Array:
    """X in float32 at least: a function of several steps rounds once, at its end."""
    return X.astype(accumulator(X))


def sigmoids(X: Array) -> tuple[Array, Array]:
    """σ(x) and σ(−x), which 1 − σ(x) would round to 0 for a large x, from one exponential, which never overflows."""
    E = jnp.exp(jnp.where(X < 0, X, -X))  # with a slope at 0, of which a minimum would make two halves
    share = 1 / (1 + E)
    return jnp.where(X < 0, E, 1) * share, jnp.where(X < 0, 1, E) * share
