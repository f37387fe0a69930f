"""What losses over a lattice of paths share: sums in logarithms, where log 0 is −∞, and checks of labels."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, describe, is_integer
from handgrad.rules._softmax import rest_of


def log_sum(logs: Array, axis: int = -1) -> Array:
    """log Σ eˣ along an axis; −∞ where every x is −∞, with no NaN on the way."""
    largest = jnp.max(logs, axis=axis, keepdims=True)
    rest = rest_of(logs - jnp.where(largest == -jnp.inf, 0, largest), axis)
    return jnp.squeeze(largest + jnp.log1p(rest), axis)


def without_largest(logs: Float[Array, " states"]) -> tuple[Float[Array, " states"], Float[Array, " 1"]]:
    """Logarithms of any size as differences from the largest of them, and the largest; −∞ stays −∞."""
    largest = jnp.max(logs, keepdims=True, initial=jnp.finfo(logs.dtype).min)
    return logs - largest, largest


def moved(states: Float[Array, " states"], by: int) -> Float[Array, " states"]:
    """The numbers shifted to the state `by` places later; log 0 comes in from outside."""
    count = states.shape[0]
    padded = jnp.pad(states, (max(by, 0), max(-by, 0)), constant_values=-jnp.inf)
    return padded[:count] if by > 0 else padded[-count:]


def by_diagonals(nodes: Array) -> Array:
    """(time, states) as (time + states − 1, states): element u of row n is that of node (n − u, u), or −∞.

    Of the columns one after the other, each followed by as many −∞ as there are columns, rows that are one element
    shorter begin one element earlier each.
    """
    time, count = nodes.shape
    columns = jnp.pad(nodes.T, ((0, 0), (0, count)), constant_values=-jnp.inf).reshape(-1)
    return columns[: count * (time + count - 1)].reshape(count, time + count - 1).T


def by_nodes(diagonals: Array) -> Array:
    """The inverse, (time, states)."""
    n, count = diagonals.shape
    columns = jnp.pad(diagonals.T.reshape(-1), (0, count)).reshape(count, n + 1)
    return columns[:, : n + 1 - count].T


def as_index(a: Array) -> Array:
    """Integers of any dtype, in one that counts: of 32 bits at least."""
    a = jnp.asarray(a)
    return a.astype(jnp.promote_types(a.dtype, jnp.int32))


def check_integers(where: str, name: str, value: Array, axes: str, batch: int) -> None:
    """`value` is an array of integers with these axes, the first of them the batch."""
    if not (is_integer(value) and value.ndim == len(axes.split()) and value.shape[0] == batch):
        raise InputError(f"{where}: {name} must be integers {axes} of batch {batch}, got {describe(value)}")


def check_blank(where: str, blank: int, classes: int) -> None:
    """`blank` is a class."""
    if isinstance(blank, bool) or not isinstance(blank, int) or not 0 <= blank < classes:
        raise InputError(f"{where}: blank must be a class, an integer in 0 … {classes - 1}, got {blank!r}")
