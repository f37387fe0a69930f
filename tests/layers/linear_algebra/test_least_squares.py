"""Least squares and the pseudo-inverse as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import B, X, check_layers

from handgrad import layers


def test_values_and_gradients():
    tall = X[..., :2]
    check_layers(
        (layers.least_squares(), lambda x: jnp.linalg.pinv(x[0]) @ x[1], (tall, B)),
        (layers.pseudo_inverse(rtol=1e-6), jnp.linalg.pinv, tall),
    )
