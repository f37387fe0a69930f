"""Rows of rules/lora.py."""

import jax.numpy as jnp

from cases.case import Case, normal
from handgrad import layers


def lora_linear(X, W, A, B, b=None, scale=1.0):
    Y = jnp.einsum("...i,io->...o", X, W) + scale * jnp.einsum("...i,ir,ro->...o", X, A, B)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


CASES = [
    Case("lora_linear", "rows", normal((5, 4), (4, 3), (4, 2), (2, 3), (3,)), lora_linear, {"scale": 0.5}),
    Case("lora_linear", "no-bias", normal((5, 4), (4, 3), (4, 1), (1, 3)), lora_linear, {"scale": 2.0}),
    Case(
        "lora_linear",
        "tokens-recomputed",
        normal((3, 4, 2), (2, 5), (2, 2), (2, 5), (5,)),
        lora_linear,
        {"scale": 1, "residuals": "recompute"},
    ),
]

LAYERS = {"lora_linear": lambda: layers.lora_linear(3, rank=2)}
