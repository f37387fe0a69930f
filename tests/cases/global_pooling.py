"""Rows of rules/global_pooling.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, fixed, normal
from handgrad import layers


def global_average_pool(X):
    return jnp.sum(X.reshape(X.shape[0], -1, X.shape[-1]), 1) / (X[0, ..., 0].size)


def global_max_pool(X):
    return jnp.max(X.reshape(X.shape[0], -1, X.shape[-1]), axis=1)


TIES = np.array([1, 2, 1, 0, 1, 2.0]).reshape(1, 3, 2)
CASES = [
    Case("global_average_pool", "plane", normal((2, 3, 4, 5)), global_average_pool),
    Case("global_average_pool", "one element", normal((3, 1, 2)), global_average_pool),
    Case("global_max_pool", "plane", normal((2, 3, 4, 5)), global_max_pool),
    Case("global_max_pool", "ties", fixed(TIES), global_max_pool),
]

LAYERS = {
    "global_average_pool": lambda: layers.global_average_pool(),
    "global_max_pool": lambda: layers.global_max_pool(),
}
