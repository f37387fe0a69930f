"""What rnn, lstm and gru share: checks, lengths, where a cotangent is cut, and the state that enters each step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_count, check_shape, describe
from handgrad.factors.base import accumulator

Array = jax.Array


class Mask(NamedTuple):
    """What is special about a step, time first, as a scan walks it: (time, batch or 1, 1) each, None for nothing.

    Attributes:
      inside: the step belongs to the example: t < length. Elsewhere the state goes on unchanged.
      cut: truncated backpropagation ends here: no cotangent goes on to the step before.
    """

    inside: Array | None
    cut: Array | None


def check_sequences(where: str, gates: int, X: Any, W: Any, U: Any, b: Any, lengths: Any, **states: Any) -> None:
    """X (batch, time, n_in), W (n_in, gates n), U (n, gates n), b (gates n,), states (batch, n), lengths (batch,)."""
    check_array(where, "X", X)
    if len(X.shape) != 3:
        raise InputError(f"{where}: X must have shape (batch, time, n_in), got {describe(X)}")
    for name, value in (("W", W), ("U", U), ("b", b), *states.items()):
        check_array(where, name, value)
    batch, time, n_in = X.shape
    columns = "n" if gates == 1 else f"{gates} n"
    if U.ndim != 2 or U.shape[1] != gates * U.shape[0]:
        raise InputError(f"{where}: U must have shape (n, {columns}), got {describe(U)}")
    n = U.shape[0]
    check_shape(where, "W", W, (n_in, gates * n), f"to meet X {tuple(X.shape)} and U {tuple(U.shape)}")
    check_shape(where, "b", b, (gates * n,), f"to meet U {tuple(U.shape)}")
    for name, state in states.items():
        check_shape(where, name, state, (batch, n), "(one state for each example, as wide as U is high)")
    if lengths is not None:
        _check_lengths(where, lengths, batch, time)


def check_walk(where: str, reverse: Any, truncate: Any) -> None:
    """The options that say how time is walked."""
    if not isinstance(reverse, bool):
        raise InputError(f"{where}: reverse must be True or False, got {reverse!r}")
    if truncate is not None:
        check_count(where, "truncate", truncate)


def check_two(where: str, name: str, value: Any, form: str) -> tuple[Any, Any]:
    """`value` is a pair: the cotangents of two outputs."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise InputError(f"{where}: {name} must be {form}, got {describe(value)}")
    return value


def _check_lengths(where: str, lengths: Any, batch: int, time: int) -> None:
    """One positive integer for each example, within the time axis as far as the numbers are known."""
    check_shape(where, "lengths", lengths, (batch,), "(one for each example)")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise InputError(f"{where}: lengths must be integers, got {describe(lengths)}")
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)
        wrong = known[(known < 1) | (known > time)]
        if wrong.size:
            raise InputError(f"{where}: lengths must be in 1 … {time}, the steps of X, got {wrong[0]}")


def settle(lengths: Any, time: int, *states: Array) -> tuple[Any, ...]:
    """The lengths as int32 and the states; an example whose traced length is impossible starts from NaN."""
    if lengths is None:
        return None, *states
    lengths = jnp.asarray(lengths).astype(jnp.promote_types(lengths.dtype, jnp.int32))
    possible = (lengths >= 1) & (lengths <= time)
    poisoned = (jnp.where(possible[:, None], state, jnp.nan) for state in states)
    return jnp.where(possible, lengths, time).astype(jnp.int32), *poisoned


def mask_of(lengths: Array | None, time: int, reverse: bool, truncate: int | None) -> Mask:
    """Which steps are inside, and which are the first of a piece of `truncate` steps, but for the very first."""
    t = jnp.arange(time)[:, None, None]
    length = time if lengths is None else lengths[None, :, None]
    step = length - 1 - t if reverse else t
    cut = None if truncate is None else (step > 0) & (step % truncate == 0)
    return Mask(None if lengths is None else t < length, cut)


def own_steps(A: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """A (batch, time, n) with zeros past each example's end, whatever it had there, and which steps are its own."""
    if lengths is None:
        return A, None
    own = jnp.expand_dims(jnp.arange(A.shape[1]), 0) < jnp.expand_dims(lengths, 1)
    return jnp.where(jnp.expand_dims(own, 2), A, 0), own


def keep(inside: Array | None, new: Array, old: Array | float) -> Array:
    """`new` at the steps of an example, `old` past its end."""
    return new if inside is None else jnp.where(inside, new, old)


def uncut(cut: Array | None, state: Array) -> Array:
    """The state as a step reads it; stop_gradient where backpropagation is truncated."""
    return state if cut is None else jnp.where(cut, jax.lax.stop_gradient(state), state)


def halt(cut: Array | None, dstate: Array) -> Array:
    """The same, backwards: nothing where it is cut."""
    return dstate if cut is None else jnp.where(cut, 0, dstate)


def project(X: Array, W: Array, b: Array) -> Array:
    """X W + 1 bᵀ for all time at once, in float32 at least."""
    dtype = accumulator(X, W, b)
    return meshes.matmul(X, W, dtype) + as_row(b.astype(dtype), 3)


def time_first(A: Array) -> Array:
    """(batch, time, n) as (time, batch, n), and back."""
    return jnp.swapaxes(A, 0, 1)


def entering(H: Array, H0: Array, lengths: Array | None, reverse: bool) -> Array:
    """The state that each step starts from, (batch, time, n): the state after the step before, H0 for the first."""
    first = jnp.expand_dims(meshes.Types.of(jnp.sum(H, axis=1)).given_to(H0.astype(H.dtype)), 1)
    if not reverse:
        return jnp.concatenate([first, H], axis=1)[:, :-1]
    after = jnp.concatenate([H, first], axis=1)[:, 1:]
    if lengths is None:
        return after
    starts = jnp.arange(H.shape[1])[None, :, None] == lengths[:, None, None] - 1
    return jnp.where(starts, first, after)
