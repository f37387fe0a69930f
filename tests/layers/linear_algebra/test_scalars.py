"""Scalars of a matrix as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import X, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers(
        (layers.trace(), lambda X: jnp.trace(X, axis1=-2, axis2=-1), X),
        (layers.determinant(), jnp.linalg.det, X),
        (layers.log_determinant(), lambda X: tuple(jnp.linalg.slogdet(X)), X),
    )
