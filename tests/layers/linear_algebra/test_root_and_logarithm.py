"""The square root and the logarithm of a matrix as layers."""

from layers.linear_algebra.as_layers import X, check_layers

from handgrad import layers
from handgrad.cases._matrices import logarithm, square_root


def test_values_and_gradients():
    check_layers((layers.matrix_square_root(), square_root, X), (layers.matrix_logarithm(), logarithm, X))
