"""The square root and the logarithm of a matrix as layers."""

import jax.numpy as jnp
from layers.linear_algebra.as_layers import X, check_layers

from handgrad import layers


def by_eigenvectors(f):
    def function(X):
        S, V = jnp.linalg.eig(X)
        return (V * f(S)[..., None, :] @ jnp.linalg.inv(V)).real

    return function


def test_values_and_gradients():
    check_layers(
        (layers.matrix_square_root(), by_eigenvectors(jnp.sqrt), X),
        (layers.matrix_logarithm(), by_eigenvectors(jnp.log), X),
    )
