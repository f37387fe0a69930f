"""Recurrent rules, beside cells of a few lines under jax.lax.scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Draw, Entry, normal


def scanned(cell: Callable[..., Any], X: Any, states: Any, lengths: Any, reverse: bool) -> Any:
    """The first state at each step, zero past the end, and the last states."""
    times = jnp.arange(X.shape[1])
    ends = jnp.full(X.shape[0], X.shape[1]) if lengths is None else lengths

    def step(states: Any, inputs: Any) -> Any:
        x, t = inputs
        inside = jnp.expand_dims(t < ends, 1)
        new = cell(x, *states)
        return tuple(map(lambda one, other: jnp.where(inside, one, other), new, states)), jnp.where(inside, new[0], 0)

    states, H = jax.lax.scan(step, states, (jnp.moveaxis(X, 1, 0), times), reverse=reverse)
    return jnp.moveaxis(H, 0, 1), states if len(states) > 1 else states[0]


def rnn(
    X: Any, W: Any, U: Any, b: Any, H0: Any, lengths: Any = None, activation: str = "tanh", reverse: bool = False
) -> Any:
    """Elman's."""
    phi = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]
    return scanned(lambda x, h: (phi(x @ W + h @ U + b[None]),), X, (H0,), lengths, reverse)


def lstm(X: Any, W: Any, U: Any, b: Any, H0: Any, C0: Any, lengths: Any = None, reverse: bool = False) -> Any:
    """Gates i, f, g, o."""

    def cell(x: Any, h: Any, c: Any) -> Any:
        i, f, g, o = jnp.split(x @ W + h @ U + b[None], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return scanned(cell, X, (H0, C0), lengths, reverse)


def gru(X: Any, W: Any, U: Any, b: Any, c: Any, H0: Any, lengths: Any = None, reverse: bool = False) -> Any:
    """Gates r, z, n, reset after the product."""

    def cell(x: Any, h: Any) -> Any:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (jnp.split(Z, 3, axis=1) for Z in (x @ W + b[None], h @ U))
        z = jax.nn.sigmoid(x_z + h_z)
        return ((1 - z) * jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * (h_n + c[None])) + z * h,)

    return scanned(cell, X, (H0,), lengths, reverse)


def linear_recurrence(A: Any, B: Any, H0: Any, reverse: bool = False) -> Any:
    """One step after the other."""

    def step(h: Any, inputs: Any) -> Any:
        a, b = inputs
        return (a * h + b,) * 2

    H = jax.lax.scan(step, H0, (jnp.moveaxis(A, 1, 0), jnp.moveaxis(B, 1, 0)), reverse=reverse)[1]
    return jnp.moveaxis(H, 0, 1)


def with_lengths(draw: Draw, *lengths: int) -> Draw:
    """The same arguments, and lengths."""
    return lambda rng: (*draw(rng), np.array(lengths))


RNN = normal((3, 4, 2), (2, 3), (3, 3), (3,), (3, 3))
LSTM = normal((3, 4, 2), (2, 12), (3, 12), (12,), (3, 3), (3, 3))
GRU = normal((3, 4, 2), (2, 9), (3, 9), (9,), (3,), (3, 3))
REVERSE = {"reverse": True}

RECURRENT = [
    Entry("rnn", "sequences", RNN, rnn),
    Entry("rnn", "lengths", with_lengths(RNN, 2, 4, 1), rnn, {"activation": "relu", **REVERSE}),
    Entry("lstm", "sequences", LSTM, lstm),
    Entry("lstm", "lengths", with_lengths(LSTM, 2, 4, 1), lstm, {"residuals": "recompute", **REVERSE}),
    Entry("gru", "sequences", GRU, gru),
    Entry("gru", "lengths", with_lengths(GRU, 2, 4, 1), gru, {"residuals": "recompute", **REVERSE}),
    Entry("linear_recurrence", "sequences", normal((2, 5, 3), (2, 5, 3), (2, 3)), linear_recurrence),
    Entry("linear_recurrence", "sequences", normal((2, 4, 3), (2, 4, 3), (2, 3)), linear_recurrence, REVERSE),
]
