"""Rows of rules/activations.py."""

import jax.numpy as jnp

from cases.case import Case, elementwise, normal
from handgrad import layers


def sigmoid(X):
    return jnp.exp(-jnp.logaddexp(-X, 0))


def softplus(X):
    return jnp.logaddexp(X, 0)


CASES = [
    *elementwise("identity", lambda X: X),
    *elementwise("sigmoid", sigmoid),
    *elementwise("tanh", jnp.tanh),
    *elementwise("softplus", softplus),
    Case("sigmoid", "recompute", normal((3, 4), scale=2.0), sigmoid, {"residuals": "recompute"}),
    Case("tanh", "recompute", normal((3, 4), scale=2.0), jnp.tanh, {"residuals": "recompute"}),
]


LAYERS = {op: getattr(layers, op) for op in ("identity", "sigmoid", "tanh", "softplus")}
