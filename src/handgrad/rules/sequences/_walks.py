"""Recurrences along time one step after the other, in place, or by an associative scan: whichever is quicker."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad import meshes
from handgrad.factors.base import accumulator
from handgrad.rules.sequences._recurrence import State, Steps

T = TypeVar("T")


def walk(
    step: Callable[[State, Array], tuple[State, tuple[State, ...]]],
    state: State,
    outputs: tuple[Steps, ...],
    reverse: bool,
    *closed_over: Steps,
) -> tuple[State, tuple[Steps, ...]]:
    """The last state, and each step's outputs written where they belong; `closed_over` are the arrays that steps read.

    A jax.lax.scan wants time in front: it would transpose every array before, and every output after.
    """
    time = outputs[0].shape[1]

    def one_step(i: Array, carried: tuple[State, tuple[Steps, ...]]) -> tuple[State, tuple[Steps, ...]]:
        t = time - 1 - i if reverse else i
        state, values = step(carried[0], t)
        pairs = zip(carried[1], values, strict=True)
        return state, tuple(
            jax.lax.dynamic_update_index_in_dim(steps, value.astype(steps.dtype), t, 1) for steps, value in pairs
        )

    return meshes.fori_loop(time, one_step, (state, outputs), closed_over)


def at(A: Steps, t: Array) -> State:
    """a_t, in float32 at least."""
    return jax.lax.dynamic_index_in_dim(A, t, 1, keepdims=False).astype(accumulator(A))


def first(H0: State | None, like: Steps) -> State:
    """The state before the first of such steps, in float32 at least; zeros for None."""
    dtype = accumulator(like)
    return jnp.zeros_like(jnp.sum(like, axis=1), dtype) if H0 is None else H0.astype(dtype)


def by_platform(associative: bool | None, by_scan: Callable[..., T], in_turn: Callable[..., T], *arrays: Any) -> T:
    """By a scan, in turn, or whichever is quicker where the program runs."""
    if associative is None:
        return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=by_scan)
    return by_scan(*arrays) if associative else in_turn(*arrays)
