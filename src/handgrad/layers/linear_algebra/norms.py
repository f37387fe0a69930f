"""Norms of a matrix as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["frobenius_norm", "nuclear_norm"]


def frobenius_norm() -> Layer:
    """Y = (Σ x_ij²)^½."""
    return from_matrix_rule(rules.frobenius_norm)


def nuclear_norm() -> Layer:
    """Y = Σ s_i, the sum of the singular values."""
    return from_matrix_rule(rules.nuclear_norm)
