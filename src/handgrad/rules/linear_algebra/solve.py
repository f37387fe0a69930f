"""Inverse and linear systems: each is solved by a factorization, and its backward pass uses the same one again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rules.linear_algebra import _matrices
from handgrad.rules.linear_algebra._matrices import (
    check_square,
    check_system,
    no_columns,
    product,
    substitute,
    symmetric,
    working,
)
from handgrad.rules.rule import Rule

__all__ = [
    "InverseResiduals",
    "PositiveDefiniteSolveResiduals",
    "SolveResiduals",
    "TriangularSolveResiduals",
    "inverse",
    "inverse_backward",
    "inverse_forward",
    "positive_definite_solve",
    "positive_definite_solve_backward",
    "positive_definite_solve_forward",
    "solve",
    "solve_backward",
    "solve_forward",
    "triangular_solve",
    "triangular_solve_backward",
    "triangular_solve_forward",
]

Array = jax.Array


class InverseResiduals(NamedTuple):
    """Y: (batch, ..., n, n) the output: it stands on both sides of dX."""

    Y: Array


def inverse_forward(X: Array) -> tuple[Array, InverseResiduals]:
    """Y = X⁻¹. A singular X gives infinities or NaN, as everywhere.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_square("inverse_forward", "X", X)
    Y = _matrices.inverted(*working(X)).astype(X.dtype)
    return Y, InverseResiduals(Y)


def inverse_backward(residuals: InverseResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = X⁻¹.

        dX = −Yᵀ dY Yᵀ

    Args:
      residuals: InverseResiduals of inverse_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/solve.md
    """
    (Y,) = check_residuals("inverse_backward", residuals, InverseResiduals)
    check_cotangent("inverse_backward", dY, Y.shape, Y.dtype)
    Yw, dYw = working(Y, dY)
    return (-product(Yw.mT, dYw, Yw.mT).astype(Y.dtype),)


inverse = Rule(inverse_forward, inverse_backward)


class SolveResiduals(NamedTuple):
    """A's factorization and the solution.

    Attributes:
      LU: (batch, ..., n, n) both triangles of A's LU factorization: the backward pass solves with Aᵀ.
      pivots: (batch, ..., n) integers, the row that each row was exchanged with.
      Y: (batch, ..., n, k) the output, for dA.
      like_A, like_B: (batch, ..., n, 0) no number, A's and B's dtype.
    """

    LU: Array
    pivots: Array
    Y: Array
    like_A: Array
    like_B: Array


def solve_forward(A: Array, B: Array) -> tuple[Array, SolveResiduals]:
    """Y = A⁻¹ B, by LU with row exchanges; A⁻¹ is never formed. A singular A gives infinities or NaN.

    Args:
      A: (batch, ..., n, n) floating point.
      B: (batch, ..., n, k) floating point, A's leading axes.
    Returns:
      Y like B, in the promoted dtype; residuals.
    Raises:
      InputError: A or B is not floating point; A is not square; B has other rows or leading axes than A.
    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("solve_forward", A, B)
    Aw, Bw = working(A, B)
    LU, pivots = _matrices.lu_factor(Aw)
    Y = _matrices.lu_solve(LU, pivots, Bw).astype(jnp.result_type(A, B))
    return Y, SolveResiduals(LU, pivots, Y, no_columns(A), no_columns(B))


def solve_backward(residuals: SolveResiduals, dY: Array) -> tuple[Array, Array]:
    """Pull dY back through Y = A⁻¹ B.

        dB = A⁻ᵀ dY      dA = −dB Yᵀ

    Args:
      residuals: SolveResiduals of solve_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dA like A; dB like B.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/solve.md
    """
    LU, pivots, Y, like_A, like_B = check_residuals("solve_backward", residuals, SolveResiduals)
    check_cotangent("solve_backward", dY, Y.shape, Y.dtype)
    Yw, dYw = working(Y, dY)
    dB = _matrices.lu_solve(LU, pivots, dYw, transpose=True)
    return -product(dB, Yw.mT).astype(like_A.dtype), dB.astype(like_B.dtype)


solve = Rule(solve_forward, solve_backward)


class TriangularSolveResiduals(NamedTuple):
    """The triangle and the solution.

    Attributes:
      A: (batch, ..., n, n) the argument: a triangle is its own factorization.
      Y: (batch, ..., n, k) the output, for dA.
      like_B: (batch, ..., n, 0) no number, B's dtype.
    """

    A: Array
    Y: Array
    like_B: Array


def triangular_solve_forward(
    A: Array, B: Array, *, lower: bool = True, unit_diagonal: bool = False
) -> tuple[Array, TriangularSolveResiduals]:
    """Y = A⁻¹ B for a triangular A, by substitution. What lies outside the triangle is never read.

    Args:
      A: (batch, ..., n, n) floating point.
      B: (batch, ..., n, k) floating point, A's leading axes.
      lower: True for the triangle below the diagonal, False for the one above.
      unit_diagonal: True takes the diagonal as ones, and never reads it either.
    Returns:
      Y like B, in the promoted dtype; residuals.
    Raises:
      InputError: A or B is not floating point; A is not square; B has other rows or leading axes than A.
    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("triangular_solve_forward", A, B)
    Y = substitute(*working(A, B), lower=lower, unit_diagonal=unit_diagonal).astype(jnp.result_type(A, B))
    return Y, TriangularSolveResiduals(A, Y, no_columns(B))


def triangular_solve_backward(
    residuals: TriangularSolveResiduals, dY: Array, *, lower: bool = True, unit_diagonal: bool = False
) -> tuple[Array, Array]:
    """Pull dY back through Y = A⁻¹ B, A a triangle.

        dB = A⁻ᵀ dY      dA = −tri(dB Yᵀ)      tri: 0 wherever A is not read

    Args:
      residuals: TriangularSolveResiduals of triangular_solve_forward.
      dY: like Y, cotangent of Y.
      lower, unit_diagonal: the forward's.
    Returns:
      dA like A; dB like B.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/solve.md
    """
    A, Y, like_B = check_residuals("triangular_solve_backward", residuals, TriangularSolveResiduals)
    check_cotangent("triangular_solve_backward", dY, Y.shape, Y.dtype)
    Aw, Yw, dYw = working(A, Y, dY)
    dB = substitute(Aw, dYw, lower=lower, unit_diagonal=unit_diagonal, transpose=True)
    outside = 1 if unit_diagonal else 0
    tri = jnp.tril(product(dB, Yw.mT), -outside) if lower else jnp.triu(product(dB, Yw.mT), outside)
    return -tri.astype(A.dtype), dB.astype(like_B.dtype)


triangular_solve = Rule(triangular_solve_forward, triangular_solve_backward)


class PositiveDefiniteSolveResiduals(NamedTuple):
    """A's factorization and the solution.

    Attributes:
      L: (batch, ..., n, n) Cholesky factor of A; A is symmetric, so the backward pass solves with A itself.
      Y: (batch, ..., n, k) the output, for dA.
      like_A, like_B: (batch, ..., n, 0) no number, A's and B's dtype.
    """

    L: Array
    Y: Array
    like_A: Array
    like_B: Array


def positive_definite_solve_forward(A: Array, B: Array) -> tuple[Array, PositiveDefiniteSolveResiduals]:
    """Y = A⁻¹ B for a symmetric positive definite A, by Cholesky: half of what LU costs.

    A is read as (A + Aᵀ) / 2. Where that is not positive definite, Y is NaN.

    Args:
      A: (batch, ..., n, n) floating point.
      B: (batch, ..., n, k) floating point, A's leading axes.
    Returns:
      Y like B, in the promoted dtype; residuals.
    Raises:
      InputError: A or B is not floating point; A is not square; B has other rows or leading axes than A.
    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("positive_definite_solve_forward", A, B)
    Aw, Bw = working(A, B)
    L = _matrices.cholesky_factor(Aw)
    Y = _substitute_twice(L, Bw).astype(jnp.result_type(A, B))
    return Y, PositiveDefiniteSolveResiduals(L, Y, no_columns(A), no_columns(B))


def positive_definite_solve_backward(residuals: PositiveDefiniteSolveResiduals, dY: Array) -> tuple[Array, Array]:
    """Pull dY back through Y = A⁻¹ B, A symmetric.

        dB = A⁻¹ dY      dA = −½ (dB Yᵀ + Y dBᵀ)

    Args:
      residuals: PositiveDefiniteSolveResiduals of positive_definite_solve_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dA like A, symmetric; dB like B.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/solve.md
    """
    where = "positive_definite_solve_backward"
    L, Y, like_A, like_B = check_residuals(where, residuals, PositiveDefiniteSolveResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    Yw, dYw = working(Y, dY)
    dB = _substitute_twice(L, dYw)
    return -symmetric(product(dB, Yw.mT)).astype(like_A.dtype), dB.astype(like_B.dtype)


positive_definite_solve = Rule(positive_definite_solve_forward, positive_definite_solve_backward)


def _substitute_twice(L: Array, B: Array) -> Array:
    """(L Lᵀ)⁻¹ B = L⁻ᵀ L⁻¹ B."""
    return substitute(L, substitute(L, B), transpose=True)
