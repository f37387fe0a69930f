"""A diagonal plus a matrix of low rank, as layers without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["low_rank_log_determinant", "low_rank_solve"]


def low_rank_solve() -> Layer:
    """Y = (diag(d) + U Vᵀ)⁻¹ B, of x = (d, U, V, B)."""
    return from_matrix_rule(rules.low_rank_solve, "d", "U", "V", "B", matrix=1)


def low_rank_log_determinant() -> Layer:
    """(S, Y): S = sign det M, Y = log |det M|, of M = diag(d) + U Vᵀ and x = (d, U, V)."""
    return from_matrix_rule(rules.low_rank_log_determinant, "d", "U", "V", matrix=1)
