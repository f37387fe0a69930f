"""Least squares and the pseudo-inverse as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule

__all__ = ["least_squares", "pseudo_inverse"]


def least_squares() -> Layer:
    """Y = A⁺ B, of x = (A, B), for an A of full rank."""
    return from_matrix_rule(rules.least_squares, "A", "B")


def pseudo_inverse(*, rtol: float | None = None) -> Layer:
    """Y = X⁺, of any rank.

    Args:
      rtol: singular values up to rtol times the largest count as 0; None for 8 max(m, n) eps.
    """
    return from_matrix_rule(rules.pseudo_inverse.with_options(rtol=rtol))
