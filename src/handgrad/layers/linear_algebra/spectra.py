"""Eigenvalues and singular values as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["svd", "symmetric_eigen"]


def svd() -> Layer:
    """(U, S, Vᵀ), of X = U diag(S) Vᵀ."""
    return from_matrix_rule(rules.svd)


def symmetric_eigen() -> Layer:
    """(S, V), of X = V diag(S) Vᵀ."""
    return from_matrix_rule(rules.symmetric_eigen)
