"""Functions of a symmetric matrix as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule
from handgrad.rules.linear_algebra.symmetric_functions import Function

__all__ = ["symmetric_function"]


def symmetric_function(f: Function) -> Layer:
    """Y = f(X), of X read as (X + Xᵀ) / 2.

    Args:
      f: "sqrt", "log", "exp"; a number p for Xᵖ; or the pair (f, f′), both elementwise.
    """
    return from_matrix_rule(rules.symmetric_function.with_options(f=f))
