"""Rows of rules/self_gated.py."""

import jax
import jax.numpy as jnp

from cases.activations import sigmoid
from cases.case import Case, elementwise, normal
from handgrad import layers


def gelu(X, approximate=False):
    if approximate:
        return X / 2 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi).astype(X.dtype) * (X + 0.044715 * X**3)))
    return X / 2 * (1 + jax.scipy.special.erf(X / 2**0.5))


def mish(X):
    return X * jnp.tanh(jnp.logaddexp(X, 0))


CASES = [
    *elementwise("silu", lambda X: X * sigmoid(X)),
    Case("silu", "save", normal((3, 4), scale=2.0), lambda X: X * sigmoid(X), {"residuals": "save"}),
    *elementwise("mish", mish),
    Case("mish", "save", normal((3, 4), scale=2.0), mish, {"residuals": "save"}),
    *elementwise("gelu", gelu),
    *elementwise("gelu", gelu, approximate=True),
    Case("gelu", "save", normal((3, 4), scale=2.0), gelu, {"residuals": "save"}),
]


LAYERS = {op: getattr(layers, op) for op in ("silu", "mish", "gelu")}
