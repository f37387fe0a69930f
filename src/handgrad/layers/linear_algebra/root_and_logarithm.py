"""The square root and the logarithm of a matrix as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["matrix_logarithm", "matrix_square_root"]


def matrix_square_root() -> Layer:
    """Y with Y Y = X, the principal one."""
    return from_matrix_rule(rules.matrix_square_root)


def matrix_logarithm() -> Layer:
    """Y with eʸ = X, the principal one."""
    return from_matrix_rule(rules.matrix_logarithm)
