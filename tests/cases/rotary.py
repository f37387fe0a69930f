"""Rows of rules/rotary.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case
from handgrad import layers


def rotary(X, positions, base=10000.0, form="half"):
    """By rotation matrices, written out: Y = R(θ) X for each token, R (n, n) with a block of 2 × 2 for each pair."""
    n = X.shape[-1]
    dtype = jnp.promote_types(X.dtype, jnp.float32)
    angles = positions[..., None].astype(dtype) * jnp.broadcast_to(
        jnp.asarray([base ** (-2 * i / n) for i in range(n // 2)], dtype), (*positions.shape, n // 2)
    )
    one, other = (
        (np.arange(n // 2), np.arange(n // 2, n)) if form == "half" else (np.arange(0, n, 2), np.arange(1, n, 2))
    )
    R = jnp.zeros((*positions.shape, n, n), dtype)
    R = R.at[..., one, one].set(jnp.cos(angles)).at[..., other, other].set(jnp.cos(angles))
    R = R.at[..., one, other].set(-jnp.sin(angles)).at[..., other, one].set(jnp.sin(angles))
    letters = "tij,bthj->bthi" if positions.ndim == 1 else "btij,bthj->bthi"
    return jnp.einsum(letters, R, X.astype(dtype)).astype(X.dtype)


def drawn(shape, positions):
    return lambda rng: (rng.standard_normal(shape), np.array(positions))


CASES = [
    Case("rotary", "half", drawn((2, 3, 2, 6), [0, 1, 2]), rotary),
    Case("rotary", "interleaved", drawn((2, 3, 2, 6), [5, 1, 700]), rotary, {"form": "interleaved", "base": 100.0}),
    Case("rotary", "each-its-own", drawn((2, 3, 1, 4), [[0, 1, 2], [4, 3, -7]]), rotary, {"base": 50.0}),
    Case("rotary", "one-pair", drawn((1, 1, 1, 2), [3]), rotary, {"form": "interleaved"}),
]


LAYERS = {"rotary": lambda: layers.multi_head_attention(2, rotary=10000.0)}
