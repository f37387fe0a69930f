"""Inverse and linear systems: each is solved by a factorization, which the backward pass reuses."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from handgrad import meshes
from handgrad.checks import check_cotangent, check_flags, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Columns,
    Like,
    Square,
    adjoint,
    as_columns,
    cast,
    check_square,
    check_system,
    cholesky_factor,
    lu_factor,
    lu_solve,
    no_columns,
    product,
    substitute,
    symmetric,
)

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


class InverseResiduals(NamedTuple):
    """Y, the output: a factor of dX, on both sides."""

    Y: Square


def inverse_forward(X: Square) -> tuple[Square, InverseResiduals]:
    """Y = X⁻¹, by LU. A singular X gives infinities or NaN.

    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_square("inverse_forward", "X", X)
    Y = meshes.along_batch(jnp.linalg.inv, *wide(X)).astype(X.dtype)
    return Y, InverseResiduals(Y)


def inverse_backward(residuals: InverseResiduals, dY: Square) -> tuple[Square]:
    """Pull dY back through Y = X⁻¹.

        dX = −Yᵀ dY Yᵀ

    Derivation: docs/derivations/linear_algebra/solve.md
    """
    (Y,) = check_residuals("inverse_backward", residuals, InverseResiduals)
    check_cotangent("inverse_backward", dY, Y.shape, Y.dtype)
    Yw, dYw = wide(Y, dY)
    return (-product(Yw.mT, dYw, Yw.mT).astype(Y.dtype),)


inverse = Rule(inverse_forward, inverse_backward)


class SolveResiduals(NamedTuple):
    """A's factorization and the solution.

    Attributes:
      LU: both triangles of A's LU factorization, with which the backward pass solves for Aᵀ.
      pivots: the row that each row was exchanged with.
      Y: the output, for dA.
      like_A, like_B: A's and B's dtype.
    """

    LU: Square
    pivots: Int[Array, "*batch n"]
    Y: Columns
    like_A: Like
    like_B: Like


def solve_forward(A: Square, B: Columns) -> tuple[Columns, SolveResiduals]:
    """Y = A⁻¹ B, by LU with row exchanges; A⁻¹ is never formed. A singular A gives infinities or NaN.

    B is (..., n, k) beside an A of (..., n, n), or (..., n): a vector for each matrix, which Y is too.

    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("solve_forward", A, B)
    Aw, Bw = wide(A, B)
    LU, pivots = lu_factor(Aw)
    Y = lu_solve(LU, pivots, as_columns(Bw, A.ndim)).reshape(B.shape).astype(jnp.result_type(A, B))
    return Y, SolveResiduals(LU, pivots, Y, no_columns(A), no_columns(B))


def solve_backward(residuals: SolveResiduals, dY: Columns) -> tuple[Square, Columns]:
    """Pull dY back through Y = A⁻¹ B.

        dB = A⁻ᵀ dY      dA = −dB Yᵀ

    Derivation: docs/derivations/linear_algebra/solve.md
    """
    LU, pivots, Y, like_A, like_B = check_residuals("solve_backward", residuals, SolveResiduals)
    check_cotangent("solve_backward", dY, Y.shape, Y.dtype)
    Yw, dYw = (as_columns(M, LU.ndim) for M in wide(Y, dY))
    dB = lu_solve(LU, pivots, dYw, transpose=True)
    return cast(-product(dB, Yw.mT), like_A.dtype), cast(dB, like_B.dtype).reshape(Y.shape)


solve = Rule(solve_forward, solve_backward)


class TriangularSolveResiduals(NamedTuple):
    """The triangle and the solution.

    Attributes:
      A: the argument: a triangle needs no factorization.
      Y: the output, for dA.
      like_B: B's dtype.
    """

    A: Square
    Y: Columns
    like_B: Like


def triangular_solve_forward(
    A: Square, B: Columns, *, lower: bool = True, unit_diagonal: bool = False
) -> tuple[Columns, TriangularSolveResiduals]:
    """Y = A⁻¹ B for a triangular A, by substitution. Elements outside the triangle are never read.

    Args:
      lower: True for the triangle below the diagonal, False for the one above.
      unit_diagonal: True takes the diagonal as ones, and never reads it either.
    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("triangular_solve_forward", A, B)
    check_flags("triangular_solve_forward", lower=lower, unit_diagonal=unit_diagonal)
    Aw, Bw = (as_columns(M, A.ndim) for M in wide(A, B))
    Y = substitute(Aw, Bw, lower=lower, unit_diagonal=unit_diagonal).reshape(B.shape).astype(jnp.result_type(A, B))
    return Y, TriangularSolveResiduals(A, Y, no_columns(B))


def triangular_solve_backward(
    residuals: TriangularSolveResiduals, dY: Columns, *, lower: bool = True, unit_diagonal: bool = False
) -> tuple[Square, Columns]:
    """Pull dY back through Y = A⁻¹ B, A triangular.

        dB = A⁻ᵀ dY      dA = −tri(dB Yᵀ)      tri: 0 wherever A is not read

    Derivation: docs/derivations/linear_algebra/solve.md
    """
    A, Y, like_B = check_residuals("triangular_solve_backward", residuals, TriangularSolveResiduals)
    check_cotangent("triangular_solve_backward", dY, Y.shape, Y.dtype)
    Aw, Yw, dYw = (as_columns(M, A.ndim) for M in wide(A, Y, dY))
    dB = substitute(Aw, dYw, lower=lower, unit_diagonal=unit_diagonal, transpose=True)
    k = 1 if unit_diagonal else 0
    tri = jnp.tril(product(dB, Yw.mT), -k) if lower else jnp.triu(product(dB, Yw.mT), k)
    return cast(-tri, A.dtype), cast(dB, like_B.dtype).reshape(Y.shape)


triangular_solve = Rule(triangular_solve_forward, triangular_solve_backward)


class PositiveDefiniteSolveResiduals(NamedTuple):
    """A's factorization and the solution.

    Attributes:
      L: Cholesky factor of A; A is symmetric, so the backward pass solves with A itself.
      Y: the output, for dA.
      like_A, like_B: A's and B's dtype.
    """

    L: Square
    Y: Columns
    like_A: Like
    like_B: Like


def positive_definite_solve_forward(A: Square, B: Columns) -> tuple[Columns, PositiveDefiniteSolveResiduals]:
    """Y = A⁻¹ B for a symmetric positive definite A, by Cholesky, at half of the cost of LU.

    A is read as (A + Aᵀ) / 2. Where that is not positive definite, Y is NaN.

    Derivation: docs/derivations/linear_algebra/solve.md (Giles 2008)
    """
    check_system("positive_definite_solve_forward", A, B)
    Aw, Bw = wide(A, B)
    L = cholesky_factor(Aw)
    Y = _cholesky_solve(L, as_columns(Bw, A.ndim)).reshape(B.shape).astype(jnp.result_type(A, B))
    return Y, PositiveDefiniteSolveResiduals(L, Y, no_columns(A), no_columns(B))


def positive_definite_solve_backward(residuals: PositiveDefiniteSolveResiduals, dY: Columns) -> tuple[Square, Columns]:
    """Pull dY back through Y = A⁻¹ B, A symmetric.

        dB = A⁻¹ dY      dA = −½ (dB Yᵀ + Y dBᵀ)      dA is symmetric

    Derivation: docs/derivations/linear_algebra/solve.md
    """
    where = "positive_definite_solve_backward"
    L, Y, like_A, like_B = check_residuals(where, residuals, PositiveDefiniteSolveResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    Yw, dYw = (as_columns(M, L.ndim) for M in wide(Y, dY))
    dB = _cholesky_solve(L, dYw.conj())
    dA = -symmetric(product(dB, adjoint(Yw)))
    return cast(dA.conj(), like_A.dtype), cast(dB.conj(), like_B.dtype).reshape(Y.shape)


positive_definite_solve = Rule(positive_definite_solve_forward, positive_definite_solve_backward)


def _cholesky_solve(L: Square, B: Inexact[Array, "*batch n k"]) -> Inexact[Array, "*batch n k"]:
    """(L Lᴴ)⁻¹ B = L⁻ᴴ L⁻¹ B."""
    return substitute(L, substitute(L, B), transpose=True, conjugate=True)
