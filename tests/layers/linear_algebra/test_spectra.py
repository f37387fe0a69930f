"""Eigenvalues and singular values as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import X, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers(
        (layers.symmetric_eigen(), lambda X: tuple(jnp.linalg.eigh(X)), X),
        (layers.svd(), lambda X: tuple(jnp.linalg.svd(X, full_matrices=False)), X),
    )
