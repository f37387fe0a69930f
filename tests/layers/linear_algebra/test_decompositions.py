"""Cholesky and QR as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import X, check_in_a_chain, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers((layers.cholesky(), jnp.linalg.cholesky, X), (layers.qr(), lambda X: tuple(jnp.linalg.qr(X)), X))


def test_in_a_chain():
    check_in_a_chain(layers.cholesky())
