"""Decompositions into a triangular factor as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["cholesky", "qr"]


def cholesky() -> Layer:
    """L, of X = L Lᵀ."""
    return from_matrix_rule(rules.cholesky)


def qr() -> Layer:
    """(Q, R), of X = Q R."""
    return from_matrix_rule(rules.qr)
