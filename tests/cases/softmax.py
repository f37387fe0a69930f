"""Rows of rules/softmax.py."""

import jax
import jax.numpy as jnp

from cases.case import along_rows
from handgrad import layers


def softmax(X):
    return jnp.exp(log_softmax(X))


def log_softmax(X):
    shifted = X - jax.lax.stop_gradient(jnp.max(X, -1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True))


def logsumexp(X):
    return jax.scipy.special.logsumexp(X, axis=-1)


CASES = [
    *along_rows("softmax", softmax),
    *along_rows("log_softmax", log_softmax),
    *along_rows("logsumexp", logsumexp),
]


LAYERS = {op: getattr(layers, op) for op in ("softmax", "log_softmax", "logsumexp")}
