"""The matrix exponential as a layer, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["matrix_exponential"]


def matrix_exponential() -> Layer:
    """Y = eˣ, the exponential of a matrix."""
    return from_matrix_rule(rules.matrix_exponential)
