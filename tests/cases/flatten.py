"""Rows of rules/flatten.py."""

import jax.numpy as jnp

from cases.case import Case, normal
from handgrad import layers


def flatten(X):
    return jnp.stack([x.ravel() for x in X])


CASES = [
    Case("flatten", "plane", normal((2, 3, 4, 2)), flatten),
    Case("flatten", "rows", normal((3, 2)), flatten),
]

LAYERS = {"flatten": lambda: layers.flatten()}
