"""Rows of rules/rnn.py, and what references of recurrent rules share: one step after the other, unrolled."""

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case
from handgrad import layers


def walk(cell, X, state, lengths, reverse, truncate):
    """state = cell(x_t, state) from step to step, a tuple whose first part is the output: (H, last state)."""
    time = X.shape[1]
    ends = jnp.full(X.shape[0], time) if lengths is None else lengths
    H = [None] * time
    for t in reversed(range(time)) if reverse else range(time):
        inside = jnp.expand_dims(t < ends, 1)
        walked = jnp.expand_dims(ends - 1 - t if reverse else jnp.full_like(ends, t), 1)
        read = state
        if truncate is not None:
            cut = (walked > 0) & (walked % truncate == 0)
            read = tuple(jnp.where(cut, jax.lax.stop_gradient(part), part) for part in state)
        new = cell(X[:, t], read)
        H[t] = jnp.where(inside, new[0], 0)
        state = tuple(jnp.where(inside, one, other) for one, other in zip(new, state, strict=True))
    return jnp.stack(H, axis=1), state


def rnn(X, W, U, b, H0, lengths=None, activation="tanh", reverse=False, truncate=None):
    phi = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def cell(x, state):
        return (phi(jnp.einsum("bi,ij->bj", x, W) + jnp.einsum("bi,ij->bj", state[0], U) + b[None]),)

    H, (H_last,) = walk(cell, X, (H0,), lengths, reverse, truncate)
    return H, H_last


def recurrent(gates, states=1, batch=3, time=3, n_in=2, n=3, lengths=None, inner_bias=False):
    """Normal arguments of a recurrent rule: X, W, U, b, the states, and the lengths."""

    def draw(rng):
        shapes = [(batch, time, n_in), (n_in, gates * n), (n, gates * n), (gates * n,)]
        shapes += [(n,)] * inner_bias + [(batch, n)] * states
        arrays = tuple(rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) == 2 else 1) for shape in shapes)
        return arrays if lengths is None else (*arrays, np.array(lengths))

    return draw


CASES = [
    Case("rnn", "tanh", recurrent(1), rnn),
    Case("rnn", "relu-lengths", recurrent(1, lengths=(2, 3, 1)), rnn, {"activation": "relu"}),
    Case("rnn", "reverse-lengths-truncated", recurrent(1, lengths=(2, 3, 1)), rnn, {"reverse": True, "truncate": 2}),
]


LAYERS = {"rnn": lambda: layers.rnn(3)}
