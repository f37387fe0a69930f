"""Functions of a symmetric matrix as layers."""

import jax
from layers.linear_algebra.as_layers import X, check_in_a_chain, check_layers

from handgrad import layers


def test_values_and_gradients():
    check_layers((layers.symmetric_function("exp"), lambda X: jax.scipy.linalg.expm((X + X.mT) / 2), X))


def test_in_a_chain():
    check_in_a_chain(layers.symmetric_function(-0.5))
