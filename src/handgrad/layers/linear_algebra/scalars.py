"""Scalars of a square matrix as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["determinant", "log_determinant", "trace"]


def trace() -> Layer:
    """Y = Σ x_ii."""
    return from_matrix_rule(rules.trace)


def determinant() -> Layer:
    """Y = det X."""
    return from_matrix_rule(rules.determinant)


def log_determinant() -> Layer:
    """(S, Y): S = sign det X, Y = log |det X|."""
    return from_matrix_rule(rules.log_determinant)
