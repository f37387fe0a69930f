"""Rows of rules/gru.py."""

import jax
import jax.numpy as jnp

from cases.case import Case
from cases.rnn import recurrent, walk
from handgrad import layers


def gru(X, W, U, b, c, H0, lengths=None, reverse=False, truncate=None):
    n = U.shape[0]
    R, Z, N = (slice(k * n, (k + 1) * n) for k in range(3))

    def cell(x, state):
        (h,) = state

        def into(part):
            return jnp.einsum("bi,ij->bj", x, W[:, part]) + b[None, part]

        def again(part):
            return jnp.einsum("bi,ij->bj", h, U[:, part])

        r, z = jax.nn.sigmoid(into(R) + again(R)), jax.nn.sigmoid(into(Z) + again(Z))
        new = jnp.tanh(into(N) + r * (again(N) + c[None]))
        return (new + z * (h - new),)

    H, (H_last,) = walk(cell, X, (H0,), lengths, reverse, truncate)
    return H, H_last


CASES = [
    Case("gru", "rows", recurrent(3, inner_bias=True), gru),
    Case(
        "gru",
        "every-option",
        recurrent(3, inner_bias=True, lengths=(2, 3, 1)),
        gru,
        {"reverse": True, "truncate": 2, "residuals": "recompute"},
    ),
]


LAYERS = {"gru": lambda: layers.gru(3)}
