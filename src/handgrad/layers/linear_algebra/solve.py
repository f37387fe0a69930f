"""Inverse and linear systems as layers, without parameters; the x of a system's layer is the pair (A, B)."""

from typing import Any

from jaxtyping import Array

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, from_rule
from handgrad.rule import Rule

__all__ = ["inverse", "positive_definite_solve", "solve", "triangular_solve"]


def inverse() -> Layer:
    """Y = X⁻¹."""
    return from_rule(rules.inverse)


def solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B)."""
    return _of_a_pair(rules.solve)


def triangular_solve(*, lower: bool = True, unit_diagonal: bool = False) -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A a triangle.

    Args:
      lower: True for the triangle below the diagonal, False for the one above.
      unit_diagonal: True takes the diagonal as ones and never reads it.
    """
    return _of_a_pair(rules.triangular_solve.with_options(lower=lower, unit_diagonal=unit_diagonal))


def positive_definite_solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A symmetric and positive definite."""
    return _of_a_pair(rules.positive_definite_solve)


def _of_a_pair(rule: Rule[..., Array]) -> Layer:
    """`from_rule` for a rule of two arrays: x is the pair of them, and so is dx."""

    def forward(x: tuple[Array, Array]) -> tuple[Array, Any]:
        if not (isinstance(x, tuple) and len(x) == 2):
            raise InputError(f"{rule.__name__}_forward: x must be a pair (A, B), got {describe(x)}")
        return rule.forward(*x)

    def backward(residuals: Any, dy: Array) -> tuple[tuple[Array, Array]]:
        return (rule.backward(residuals, dy),)

    forward.__name__ = f"{rule.__name__}_forward"
    return from_rule(Rule(forward, backward))
