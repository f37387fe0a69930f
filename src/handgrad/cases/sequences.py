"""Sequences: tables of rows, recurrences unrolled, one step after the other, and what runs or picks along an axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases import _linear_attention, _memories
from handgrad.cases._along import CUMULATIVE, SELECTION
from handgrad.cases.case import Arrays, Case, Draw, Rng, Shape, edge, normal

State = tuple[Array, ...]


def embedding(ids: Array, table: Array, padding_idx: int | None = None) -> Array:
    """A product with one-hot rows, of a table with one row held constant."""
    if padding_idx is not None:
        table = table.at[padding_idx].set(jax.lax.stop_gradient(table[padding_idx]))
    return jnp.einsum("...r,rn->...n", jnp.eye(len(table), dtype=table.dtype)[ids], table)


def taken(ids: Array, table: Array) -> Array:
    """JAX's own gather."""
    return jnp.take(table, ids, axis=0)


def position_embedding(X: Array, table: Array, positions: Array | None = None) -> Array:
    """Every example has the same places, or each its own."""
    if positions is not None:
        return X + jax.nn.one_hot(positions, len(table), dtype=table.dtype) @ table
    return X + jnp.broadcast_to(table[: X.shape[1]], X.shape)


def tied_head(X: Array, table: Array) -> Array:
    """Inner products with every row."""
    return jnp.einsum("...n,rn->...r", X, table)


def unrolled(
    cell: Callable[[Array, State], State],
    X: Array,
    state: State,
    lengths: Array | None,
    reverse: bool,
    truncate: int | None,
) -> tuple[Array, State]:
    """state = cell(x_t, state) from step to step, a tuple whose first part is the output: (H, last state)."""
    time = X.shape[1]
    ends = jnp.full(X.shape[0], time) if lengths is None else lengths
    H = []
    for t in reversed(range(time)) if reverse else range(time):
        inside = jnp.expand_dims(t < ends, 1)
        walked = jnp.expand_dims(ends - 1 - t if reverse else jnp.full_like(ends, t), 1)
        read = state
        if truncate is not None:
            cut = (walked > 0) & (walked % truncate == 0)
            read = tuple(jnp.where(cut, jax.lax.stop_gradient(part), part) for part in state)
        new = cell(X[:, t], read)
        H.append(jnp.where(inside, new[0], 0))
        state = tuple(jnp.where(inside, one, other) for one, other in zip(new, state, strict=True))
    return jnp.stack(H[::-1] if reverse else H, axis=1), state


def rnn(
    X: Array,
    W: Array,
    U: Array,
    b: Array,
    H0: Array,
    lengths: Array | None = None,
    activation: str = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Array, Array]:
    """Elman's."""
    phi = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def cell(x: Array, state: State) -> State:
        return (phi(jnp.einsum("bi,ij->bj", x, W) + jnp.einsum("bi,ij->bj", state[0], U) + b[None]),)

    H, (H_last,) = unrolled(cell, X, (H0,), lengths, reverse, truncate)
    return H, H_last


def lstm(
    X: Array,
    W: Array,
    U: Array,
    b: Array,
    H0: Array,
    C0: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Array, State]:
    """Gates i, f, g, o."""

    def cell(x: Array, state: State) -> State:
        h, c = state
        Z = jnp.einsum("bi,ij->bj", x, W) + jnp.einsum("bi,ij->bj", h, U) + b[None]
        i, f, g, o = jnp.split(Z, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return unrolled(cell, X, (H0, C0), lengths, reverse, truncate)


def gru(
    X: Array,
    W: Array,
    U: Array,
    b: Array,
    c: Array,
    H0: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Array, Array]:
    """Gates r, z, n, reset after the product."""

    def cell(x: Array, state: State) -> State:
        (h,) = state
        x_r, x_z, x_n = jnp.split(jnp.einsum("bi,ij->bj", x, W) + b[None], 3, axis=1)
        h_r, h_z, h_n = jnp.split(jnp.einsum("bi,ij->bj", h, U), 3, axis=1)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        new = jnp.tanh(x_n + r * (h_n + c[None]))
        return (new + z * (h - new),)

    H, (H_last,) = unrolled(cell, X, (H0,), lengths, reverse, truncate)
    return H, H_last


def linear_recurrence(
    A: Array, B: Array, H0: Array | None = None, reverse: bool = False, associative: bool | None = None
) -> Array:
    """One step after the other."""
    h, H = jnp.zeros_like(A[:, 0]) if H0 is None else H0, []
    for t in reversed(range(A.shape[1])) if reverse else range(A.shape[1]):
        h = A[:, t] * h + B[:, t]
        H.append(h)
    return jnp.stack(H[::-1] if reverse else H, axis=1)


def some_ids(shape: Shape, rows: int, n: int, dtype: Any = np.int32) -> Draw:
    """Ids that repeat, within an example and across, and a table."""
    return lambda rng: (rng.integers(0, rows, shape, dtype), rng.standard_normal((rows, n)))


def recurrent(
    gates: int,
    states: int = 1,
    lengths: tuple[int, ...] | None = None,
    inner_bias: bool = False,
    batch: int = 3,
    time: int = 3,
) -> Draw:
    """Normal arguments of a recurrent rule: X, W, U, b, the states, and the lengths."""
    n_in, n = 2, 3

    def draw(rng: Rng) -> Arrays:
        shapes = [(batch, time, n_in), (n_in, gates * n), (n, gates * n), (gates * n,)]
        shapes += [(n,)] * inner_bias + [(batch, n)] * states
        arrays = tuple(rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) == 2 else 1) for shape in shapes)
        return arrays if lengths is None else (*arrays, np.array(lengths))

    return draw


LENGTHS = (2, 3, 1)
REVERSE = {"reverse": True, "residuals": "recompute"}
LSTM, LSTM_LENGTHS = recurrent(4, states=2), recurrent(4, states=2, lengths=LENGTHS)
GRU, GRU_LENGTHS = recurrent(3, inner_bias=True), recurrent(3, inner_bias=True, lengths=LENGTHS)
STATE = normal((2, 5, 3), (2, 5, 3), (2, 3))

CASES = [
    Case(rules.embedding, "tokens", some_ids((3, 4), 5, 2), embedding, peer=taken),
    edge(rules.embedding, "rows", some_ids((6,), 4, 3, np.uint8), embedding),
    edge(rules.embedding, "one-row", some_ids((2, 3, 2), 1, 1), embedding),
    edge(rules.embedding, "one-id", lambda rng: (np.full((2, 5), 2), rng.standard_normal((3, 4))), embedding),
    edge(rules.embedding, "padded", some_ids((2, 6), 4, 3, np.uint8), embedding, {"padding_idx": 2}),
    Case(rules.position_embedding, "shorter", normal((3, 2, 4), (5, 4)), position_embedding),
    edge(rules.position_embedding, "as-long", normal((2, 3, 2), (3, 2)), position_embedding),
    edge(rules.position_embedding, "single", normal((1, 1, 1), (2, 1)), position_embedding),
    edge(
        rules.position_embedding,
        "each-its-own",
        lambda rng: (*normal((2, 3, 2), (4, 2))(rng), np.array([[0, 0, 1], [3, 0, 1]])),
        position_embedding,
    ),
    Case(rules.tied_head, "tokens", normal((3, 2, 4), (5, 4)), tied_head),
    edge(rules.tied_head, "rows", normal((4, 3), (2, 3)), tied_head),
    edge(rules.tied_head, "empty", normal((0, 3), (2, 3)), tied_head),
    Case(rules.rnn, "sequences", recurrent(1), rnn),
    Case(rules.rnn, "lengths", recurrent(1, lengths=LENGTHS), rnn, {"activation": "relu", "reverse": True}),
    edge(rules.rnn, "truncated", recurrent(1, lengths=LENGTHS), rnn, {"reverse": True, "truncate": 2}),
    Case(rules.lstm, "sequences", LSTM, lstm),
    Case(rules.lstm, "lengths", LSTM_LENGTHS, lstm, REVERSE),
    edge(rules.lstm, "truncated", LSTM_LENGTHS, lstm, {"truncate": 2, **REVERSE}),
    Case(rules.gru, "sequences", GRU, gru),
    Case(rules.gru, "lengths", GRU_LENGTHS, gru, REVERSE),
    edge(rules.gru, "truncated", GRU_LENGTHS, gru, {"truncate": 2, **REVERSE}),
    Case(rules.linear_recurrence, "state", STATE, linear_recurrence),
    Case(rules.linear_recurrence, "state", STATE, linear_recurrence, {"reverse": True}),
    Case(rules.linear_recurrence, "state", STATE, linear_recurrence, {"associative": True}),
    edge(rules.linear_recurrence, "from-zeros", normal((3, 7, 2), (3, 7, 2)), linear_recurrence),
    edge(rules.linear_recurrence, "state", STATE, linear_recurrence, {"associative": True, "reverse": True}),
    *_linear_attention.CASES,
    *CUMULATIVE,
    *SELECTION,
    *_memories.CASES,
]
