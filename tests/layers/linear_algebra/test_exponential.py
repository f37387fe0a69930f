"""The matrix exponential as a layer."""

import jax
from layers.linear_algebra.as_layers import X, check_in_a_chain, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers((layers.matrix_exponential(), jax.scipy.linalg.expm, X))


def test_in_a_chain():
    check_in_a_chain(layers.matrix_exponential())
