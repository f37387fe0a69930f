"""Sums over a row of a softmax without its largest element, which is left out and never subtracted.

A row that is sure of a class has p = 1 − δ there. δ is the sum of the other probabilities; 1 − p, or the logarithm of a
sum that is rounded to 1, would lose it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Row = Float[Array, "*rows n"]
Column = Float[Array, "*rows 1"]


def shifted(S: Row, M: Column) -> Row:
    """S − M of a row and its largest element; 0 at a logit of ∞, which is the only class then.

    Where M is ∞, nothing else makes a NaN: one in S would be in M. So S, which may be costly, is read once.
    """
    D = S - M
    return jnp.where(jnp.isnan(D) & jnp.isposinf(M), 0, D)


def rest_of(D: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Σ e^d − 1: over all but one of the largest, where d = 0. log softmax is D − log1p(rest).

    A sum of 1.5 and more has the digits of what is above 1; a smaller one has one e^d of 1, which is left out. That
    element is recognized by its size and not by being 1: a compiler that computes d twice, for two sums, may round it
    in two ways.
    """
    E = jnp.exp(D)
    total = jnp.sum(E, axis=axis, keepdims=True)
    return jnp.where(total < 1.5, jnp.sum(jnp.where(E < 0.75, E, 0), axis=axis, keepdims=True), total - 1)


def rest_below(X: Row, M: Column) -> Column:
    """rest_of(X − M), whose second sum is made only if a row of the array is sure."""
    total = jnp.sum(jnp.exp(X - M), axis=-1, keepdims=True)
    return if_any(total < 1.5, lambda: rest_of(X - M), lambda: total - 1)


def if_any(sure: Bool[Array, "..."], then: Callable[[], Column], otherwise: Callable[[], Column]) -> Column:
    """then(), which is right for every row, or the cheaper otherwise(), where none of the rows is sure. Only on a CPU:
    on other devices a branch waits for the device, which costs more than a sum that is fused with another."""
    return jax.lax.cond(jnp.any(sure), then, otherwise) if jax.default_backend() == "cpu" else then()


def chances(D: Row, rest: Column) -> tuple[Row, Row]:
    """P = e^D / (1 + rest), and 1 − P, rest / (1 + rest) at the largest element of a row that is sure of it."""
    E, share = jnp.exp(D), 1 / (1 + rest)
    return E * share, jnp.where((rest < 0.5) & (E > 0.75), rest, (1 + rest) - E) * share


def sum_of_others(V: Row) -> Row:
    """Σ_{j ≠ k} v_j for each element k of a row; not as Σ v − v_k where v_k is more than half of Σ |v|."""
    most = 2 * jnp.abs(V) > jnp.sum(jnp.abs(V), axis=-1, keepdims=True)  # one of a row at most
    top = jnp.sum(jnp.where(most, V, 0), axis=-1, keepdims=True)
    rest = jnp.sum(jnp.where(most, 0, V), axis=-1, keepdims=True)
    return (top - V) + rest


def mismatch(P: Row, V: Row) -> Row:
    """(Σ v) P − V of a softmax P.

    A row of it sums to 0, so that where both terms are more than half, and may cancel near 1, it is minus the sum of
    the others.
    """
    total = jnp.sum(V, axis=-1, keepdims=True)
    plain = P * total - V
    sure = (P > 0.5) & (total < 2 * V)
    return jnp.where(sure, -jnp.sum(jnp.where(sure, 0, plain), axis=-1, keepdims=True), plain)
