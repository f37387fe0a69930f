"""Linear algebra as layers: the rules of the same names, on batches of matrices.

None has parameters. A system of equations has two matrices, so the x of its layer is a pair (A, B); a decomposition's y
is a tuple.
"""

from typing import Any

import jax

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.rule import Rule

__all__ = [
    "cholesky",
    "determinant",
    "frobenius_norm",
    "inverse",
    "log_determinant",
    "matrix_exponential",
    "nuclear_norm",
    "positive_definite_solve",
    "qr",
    "solve",
    "svd",
    "symmetric_eigen",
    "trace",
    "triangular_solve",
]

Array = jax.Array


def inverse() -> Layer:
    """Y = X⁻¹."""
    return from_rule(rules.inverse)


def solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B)."""
    return _of_a_pair(rules.solve)


def triangular_solve(*, lower: bool = True, unit_diagonal: bool = False) -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A a triangle."""
    return _of_a_pair(rules.triangular_solve, lower=lower, unit_diagonal=unit_diagonal)


def positive_definite_solve() -> Layer:
    """Y = A⁻¹ B, of x = (A, B), A symmetric and positive definite."""
    return _of_a_pair(rules.positive_definite_solve)


def trace() -> Layer:
    """Y = Σ x_ii."""
    return from_rule(rules.trace)


def determinant() -> Layer:
    """Y = det X."""
    return from_rule(rules.determinant)


def log_determinant() -> Layer:
    """(sign det X, log |det X|)."""
    return from_rule(rules.log_determinant)


def frobenius_norm() -> Layer:
    """Y = (Σ x_ij²)^½."""
    return from_rule(rules.frobenius_norm)


def nuclear_norm() -> Layer:
    """Y = Σ s_i, the sum of the singular values."""
    return from_rule(rules.nuclear_norm)


def cholesky() -> Layer:
    """L, of X = L Lᵀ."""
    return from_rule(rules.cholesky)


def qr() -> Layer:
    """(Q, R), of X = Q R."""
    return from_rule(rules.qr)


def symmetric_eigen() -> Layer:
    """(S, V), of X = V diag(S) Vᵀ."""
    return from_rule(rules.symmetric_eigen)


def svd() -> Layer:
    """(U, S, Vᵀ), of X = U diag(S) Vᵀ."""
    return from_rule(rules.svd)


def matrix_exponential() -> Layer:
    """Y = eˣ, the exponential of a matrix."""
    return from_rule(rules.matrix_exponential)


def _of_a_pair(rule: Rule[..., Any], **options: Any) -> Layer:
    """`from_rule` for a rule of two arrays: x is the pair of them, and so is dx."""

    def of_pair(x: tuple[Array, Array], **options: Any) -> tuple[Any, Any]:
        if not (isinstance(x, tuple) and len(x) == 2):
            raise InputError(f"{rule.__name__}_forward: x must be a pair (A, B), got {describe(x)}")
        return rule.forward(*x, **options)

    def back_to_pair(residuals: Any, dy: Any, **options: Any) -> tuple[tuple[Array, Array]]:
        return (rule.backward(residuals, dy, **options),)

    of_pair.__name__ = f"{rule.__name__}_forward"
    return from_rule(Rule(of_pair, back_to_pair), **options)
