"""Norms as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import X, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers(
        (layers.frobenius_norm(), lambda X: jnp.linalg.norm(X, ord="fro", axis=(-2, -1)), X),
        (layers.nuclear_norm(), lambda X: jnp.linalg.norm(X, ord="nuc", axis=(-2, -1)), X),
    )
