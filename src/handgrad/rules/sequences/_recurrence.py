"""What rnn, lstm and gru share: checks, lengths, truncation, and the state that enters each step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_count, check_flags, check_shape, describe, is_integer

Steps = Float[Array, "batch time n"]
State = Float[Array, "batch n"]
Lengths = Int[Array, " batch"]


class Mask(NamedTuple):
    """What is special about a step, time first, as a scan reads it; None for nothing.

    Attributes:
      inside: t < length. Past the end the state stays as it is.
      cut: truncated backpropagation stops here: no cotangent reaches the step before.
    """

    inside: Bool[Array, " time #batch 1"] | None
    cut: Bool[Array, " time #batch 1"] | None


def check_sequences(
    where: str, gates: int, X: Array, W: Array, U: Array, b: Array, lengths: Array | None, **states: Array
) -> None:
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


def check_scan(where: str, reverse: object, truncate: object = None) -> None:
    """The options of the scan over time."""
    check_flags(where, reverse=reverse)
    if truncate is not None:
        check_count(where, "truncate", truncate)


def check_pair(where: str, name: str, value: object, form: str) -> None:
    """`value` is a pair: the cotangents of two outputs."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise InputError(f"{where}: {name} must be {form}, got {describe(value)}")


def _check_lengths(where: str, lengths: Array, batch: int, time: int) -> None:
    """One positive integer for each example, within the time axis as far as the numbers are known."""
    check_shape(where, "lengths", lengths, (batch,), "(one for each example)")
    if not is_integer(lengths):
        raise InputError(f"{where}: lengths must be integers, got {describe(lengths)}")
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)
        wrong = known[(known < 1) | (known > time)]
        if wrong.size:
            raise InputError(f"{where}: lengths must be in 1 … {time}, the steps of X, got {wrong[0]}")


def settle(
    lengths: Integer[Array, " batch"] | None, time: int, *states: State
) -> tuple[Lengths | None, tuple[State, ...]]:
    """The lengths as int32 and the states; an example whose traced length is impossible starts from NaN."""
    if lengths is None:
        return None, states
    lengths = jnp.asarray(lengths).astype(jnp.promote_types(lengths.dtype, jnp.int32))
    possible = (lengths >= 1) & (lengths <= time)
    poisoned = tuple(jnp.where(possible[:, None], state, jnp.nan) for state in states)
    return jnp.where(possible, lengths, time).astype(jnp.int32), poisoned


def mask_of(lengths: Lengths | None, time: int, reverse: bool, truncate: int | None) -> Mask:
    """Which steps are inside, and which are the first of a piece of `truncate` steps, but for the very first."""
    t = jnp.arange(time)[:, None, None]
    length = time if lengths is None else lengths[None, :, None]
    step = length - 1 - t if reverse else t
    cut = None if truncate is None else (step > 0) & (step % truncate == 0)
    return Mask(None if lengths is None else t < length, cut)


def own_steps(A: Steps, lengths: Lengths | None) -> tuple[Steps, Bool[Array, "batch time"] | None]:
    """A with zeros past each example's end, whatever it held there, and which steps are the example's own."""
    if lengths is None:
        return A, None
    own = jnp.expand_dims(jnp.arange(A.shape[1]), 0) < jnp.expand_dims(lengths, 1)
    return jnp.where(jnp.expand_dims(own, 2), A, 0), own


def keep(inside: Array | None, new: Array, old: Array | int) -> Array:
    """`new` at the steps of an example, `old` past its end."""
    return new if inside is None else jnp.where(inside, new, old)


def uncut(cut: Array | None, state: Array) -> Array:
    """The state as a step reads it, with stop_gradient where backpropagation is truncated."""
    return state if cut is None else jnp.where(cut, jax.lax.stop_gradient(state), state)


def halt(cut: Array | None, dstate: Array) -> Array:
    """The backward pass of `uncut`: 0 where it is cut."""
    return dstate if cut is None else jnp.where(cut, 0, dstate)


def time_first(A: Shaped[Array, "batch time n"]) -> Shaped[Array, "time batch n"]:
    """As a scan reads it; and back."""
    return jnp.swapaxes(A, 0, 1)


def entering(H: Steps, H0: State, lengths: Lengths | None, reverse: bool) -> Steps:
    """The state that each step starts from: the state after the step before, H0 for the first."""
    first = jnp.expand_dims(meshes.Types.of(jnp.sum(H, axis=1)).given_to(H0.astype(H.dtype)), 1)
    if not reverse:
        return jnp.concatenate([first, H], axis=1)[:, :-1]
    after = jnp.concatenate([H, first], axis=1)[:, 1:]
    if lengths is None:
        return after
    starts = jnp.arange(H.shape[1])[None, :, None] == lengths[:, None, None] - 1
    return jnp.where(starts, first, after)
