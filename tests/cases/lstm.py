"""Rows of rules/lstm.py."""

import jax
import jax.numpy as jnp

from cases.case import Case
from cases.rnn import recurrent, walk
from handgrad import layers


def lstm(X, W, U, b, H0, C0, lengths=None, reverse=False, truncate=None):
    n = U.shape[0]

    def cell(x, state):
        h, c = state
        i, f, g, o = (
            jnp.einsum("bi,ij->bj", x, W[:, part]) + jnp.einsum("bi,ij->bj", h, U[:, part]) + b[None, part]
            for part in (slice(k * n, (k + 1) * n) for k in range(4))
        )
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return walk(cell, X, (H0, C0), lengths, reverse, truncate)


CASES = [
    Case("lstm", "rows", recurrent(4, states=2), lstm),
    Case(
        "lstm",
        "every-option",
        recurrent(4, states=2, lengths=(2, 3, 1)),
        lstm,
        {"reverse": True, "truncate": 2, "residuals": "recompute"},
    ),
]


LAYERS = {"lstm": lambda: layers.lstm(3)}
