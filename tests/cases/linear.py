"""Rows of rules/linear.py."""

import jax.numpy as jnp

from cases.case import Case, fixed, normal
from handgrad import layers


def linear(X, W, b=None):
    Y = jnp.einsum("...i,io->...o", X, W)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


CASES = [
    Case("linear", "rows", normal((5, 7), (7, 3), (3,)), linear),
    Case("linear", "no-bias", normal((5, 7), (7, 3)), linear),
    Case("linear", "tokens", normal((3, 4, 2), (2, 5), (5,)), linear),
    Case("linear", "images", normal((2, 3, 2, 4), (4, 3), (3,)), linear),
    Case("linear", "single", normal((1, 1), (1, 1), (1,)), linear),
    Case("linear", "question", fixed([[5.7]], [[-23.1]]), linear),
    Case("linear", "empty", normal((0, 3), (3, 2), (2,)), linear),
]


LAYERS = {"linear": lambda: layers.linear(3)}
