"""What the rules of a softmax share: sums over a row without its largest element, that never subtract it.

A row that is sure of a class has p = 1 − δ there. δ is the sum of the other probabilities; 1 − p, or the logarithm of a
sum that is rounded to 1, would lose it.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def shifted(S: Array, M: Array) -> Array:
    """S − M of a row and its largest element; 0 at a logit of ∞, which is the only class then."""
    return jnp.where(jnp.isposinf(S), 0, S - M)


def rest_of(D: Array, largest: Array) -> Array:
    """Σ e^d − 1, (..., 1): over all but one of the largest, where d = 0. log softmax is D − log1p(rest)."""
    others = jnp.sum(jnp.where(largest, 0, jnp.exp(D)), axis=-1, keepdims=True)
    return others + (jnp.sum(largest, axis=-1, keepdims=True, dtype=D.dtype) - 1)


def chances(D: Array, largest: Array, rest: Array) -> tuple[Array, Array]:
    """P = e^D / (1 + rest), and 1 − P; at the largest it is rest / (1 + rest)."""
    E, share = jnp.exp(D), 1 / (1 + rest)
    return E * share, jnp.where(largest, rest, (1 + rest) - E) * share


def sum_of_others(V: Array, largest: Array) -> Array:
    """Σ_{j ≠ k} v_j for each element k of a row; where it is `largest`, without the difference Σ v − v_k."""
    top = jnp.sum(jnp.where(largest, V, 0), axis=-1, keepdims=True)
    rest = jnp.sum(jnp.where(largest, 0, V), axis=-1, keepdims=True)
    return (top - V) + rest
