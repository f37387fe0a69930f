"""Inverse and linear systems as layers, without parameters; the x of a system's layer is the pair (A, B)."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["inverse", "positive_definite_solve", "solve", "triangular_solve"]


def inverse() -> Layer:
    """Y = X⁻¹."""
    return from_matrix_rule(rules.inverse)


def solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B)."""
    return from_matrix_rule(rules.solve, "A", "B")


def triangular_solve(*, lower: bool = True, unit_diagonal: bool = False) -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A a triangle.

    Args:
      lower: True for the triangle below the diagonal, False for the one above.
      unit_diagonal: True takes the diagonal as ones and never reads it.
    """
    rule = rules.triangular_solve.with_options(lower=lower, unit_diagonal=unit_diagonal)
    return from_matrix_rule(rule, "A", "B")


def positive_definite_solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A symmetric and positive definite."""
    return from_matrix_rule(rules.positive_definite_solve, "A", "B")
