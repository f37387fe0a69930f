"""Sylvester's and Lyapunov's equations; the backward pass is the same equation, transposed."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from handgrad import meshes
from handgrad.checks import check_choice, check_cotangent, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._iterations import sylvester_by_sign
from handgrad.rules.linear_algebra._matrices import (
    Like,
    Matrices,
    Square,
    adjoint,
    cast,
    check_matrices,
    check_square,
    identity_of,
    lu_factor,
    lu_solve,
    no_columns,
    product,
)

__all__ = [
    "DiscreteLyapunovResiduals",
    "LyapunovResiduals",
    "SylvesterResiduals",
    "discrete_lyapunov",
    "discrete_lyapunov_backward",
    "discrete_lyapunov_forward",
    "lyapunov",
    "lyapunov_backward",
    "lyapunov_forward",
    "sylvester",
    "sylvester_backward",
    "sylvester_forward",
]

Method = Literal["kronecker", "sign"]
METHODS = ("kronecker", "sign")
Left = Inexact[Array, "*batch m m"]
Right = Inexact[Array, "*batch n n"]
Factorization = tuple[Inexact[Array, "*batch mn mn"], Int[Array, "*batch mn"]]


class SylvesterResiduals(NamedTuple):
    """The equation and its solution.

    Attributes:
      A, B: the arguments.
      factors: LU and pivots of A ⊗ I + I ⊗ Bᵀ, with which the backward pass solves for the transpose; () by "sign".
      Y: the output, for dA and dB.
      like_C: C's dtype.
    """

    A: Left
    B: Right
    factors: Factorization | tuple[()]
    Y: Matrices
    like_C: Like


def sylvester_forward(
    A: Left, B: Right, C: Matrices, *, method: Method = "kronecker"
) -> tuple[Matrices, SylvesterResiduals]:
    """Y of A Y + Y B = C, for A (..., m, m), B (..., n, n) and C (..., m, n), as scipy.linalg.solve_sylvester.

    There is one Y where no eigenvalue of A is the negative of one of B's; else Y has infinities, NaN, or no digits.

    Args:
      method: "kronecker" is one system of m n equations by LU: any A and B, (m n)² numbers. "sign" is Newton's
        iteration for the sign function, of inverses of A's and B's size: for eigenvalues that are all on one side of
        the imaginary axis, NaN elsewhere.
    Derivation: docs/derivations/linear_algebra/sylvester.md (Giles 2008)
    """
    where = "sylvester_forward"
    check_square(where, "A", A)
    check_square(where, "B", B)
    check_shape(where, "B", B, (*A.shape[:-2], *B.shape[-2:]), f"to match A {tuple(A.shape)}")
    check_matrices(where, "C", C)
    why = f"to match A {tuple(A.shape)} and B {tuple(B.shape)}"
    check_shape(where, "C", C, (*A.shape[:-1], B.shape[-1]), why)
    check_choice(where, "method", method, METHODS)
    return _forward(A, B, C, method)


def sylvester_backward(
    residuals: SylvesterResiduals, dY: Matrices, *, method: Method = "kronecker"
) -> tuple[Left, Right, Matrices]:
    """Pull dY back through A Y + Y B = C.

        Aᵀ dC + dC Bᵀ = dY      dA = −dC Yᵀ      dB = −Yᵀ dC

    Derivation: docs/derivations/linear_algebra/sylvester.md
    """
    check_residuals("sylvester_backward", residuals, SylvesterResiduals)
    check_cotangent("sylvester_backward", dY, residuals.Y.shape, residuals.Y.dtype)
    return _backward(residuals, dY, method)


sylvester = Rule(sylvester_forward, sylvester_backward)


class LyapunovResiduals(NamedTuple):
    """equation: those of A Y + Y B = Q with B = Aᵀ, which it is."""

    equation: SylvesterResiduals


def lyapunov_forward(A: Square, Q: Square, *, method: Method = "kronecker") -> tuple[Square, LyapunovResiduals]:
    """Y of A Y + Y Aᵀ = Q, as scipy.linalg.solve_continuous_lyapunov; Aᴴ where A is complex.

    There is one Y where no two eigenvalues of A have the sum 0. `method` as in `sylvester`; "sign" is for a stable A,
    or a stable −A.

    Derivation: docs/derivations/linear_algebra/sylvester.md
    """
    _check_lyapunov("lyapunov_forward", A, Q)
    check_choice("lyapunov_forward", "method", method, METHODS)
    Y, equation = _forward(A, adjoint(A), Q, method)
    return Y, LyapunovResiduals(equation)


def lyapunov_backward(
    residuals: LyapunovResiduals, dY: Square, *, method: Method = "kronecker"
) -> tuple[Square, Square]:
    """Pull dY back through A Y + Y Aᵀ = Q.

        Aᵀ dQ + dQ A = dY      dA = −dQ Yᵀ − dQᵀ Y

    Derivation: docs/derivations/linear_algebra/sylvester.md
    """
    (equation,) = check_residuals("lyapunov_backward", residuals, LyapunovResiduals)
    check_cotangent("lyapunov_backward", dY, equation.Y.shape, equation.Y.dtype)
    dA, dB, dQ = _backward(equation, dY, method)
    return dA + adjoint(dB), dQ


lyapunov = Rule(lyapunov_forward, lyapunov_backward)


class DiscreteLyapunovResiduals(NamedTuple):
    """The equation and its solution.

    Attributes:
      A: the argument.
      factors: LU and pivots of I − A ⊗ A, with which the backward pass solves for the transpose.
      Y: the output, for dA.
      like_Q: Q's dtype.
    """

    A: Square
    factors: Factorization
    Y: Square
    like_Q: Like


def discrete_lyapunov_forward(A: Square, Q: Square) -> tuple[Square, DiscreteLyapunovResiduals]:
    """Y of Y = A Y Aᵀ + Q, as scipy.linalg.solve_discrete_lyapunov; Aᴴ where A is complex.

    There is one Y where no two eigenvalues of A have the product 1. It is the covariance of x_t = A x_{t−1} + noise of
    covariance Q, where A's eigenvalues are below 1.

    Derivation: docs/derivations/linear_algebra/sylvester.md
    """
    _check_lyapunov("discrete_lyapunov_forward", A, Q)
    Aw, Qw = wide(A, Q)

    def matrix(A: Array) -> Array:
        K = _kron(A, A.conj())
        return identity_of(K) - K

    factors = lu_factor(meshes.along_batch(matrix, Aw))
    Y = cast(_solve(factors, Qw), jnp.result_type(A, Q))
    return Y, DiscreteLyapunovResiduals(A, factors, Y, no_columns(Q))


def discrete_lyapunov_backward(residuals: DiscreteLyapunovResiduals, dY: Square) -> tuple[Square, Square]:
    """Pull dY back through Y = A Y Aᵀ + Q.

        dQ = Aᵀ dQ A + dY      dA = dQ A Yᵀ + dQᵀ A Y

    Derivation: docs/derivations/linear_algebra/sylvester.md
    """
    where = "discrete_lyapunov_backward"
    A, factors, Y, like_Q = check_residuals(where, residuals, DiscreteLyapunovResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    Aw, Yw, dYw = wide(A, Y, dY)
    dQ = _solve(factors, dYw, transpose=True)
    dA = product(dQ, Aw.conj(), Yw.mT) + product(adjoint(dQ), Aw.conj(), Yw.conj())
    return cast(dA, A.dtype), cast(dQ, like_Q.dtype)


discrete_lyapunov = Rule(discrete_lyapunov_forward, discrete_lyapunov_backward)


def _check_lyapunov(where: str, A: Array, Q: Array) -> None:
    check_square(where, "A", A)
    check_matrices(where, "Q", Q, "(..., n, n)")
    check_shape(where, "Q", Q, A.shape, f"to match A {tuple(A.shape)}")


def _forward(A: Left, B: Right, C: Matrices, method: Method) -> tuple[Matrices, SylvesterResiduals]:
    Aw, Bw, Cw = wide(A, B, C)
    factors = ()
    if method == "kronecker":
        factors = lu_factor(meshes.along_batch(_kronecker_sum, Aw, Bw))
    Y = _solve(factors, Cw) if factors else sylvester_by_sign(Aw, Bw, Cw)
    Y = Y.astype(jnp.result_type(A, B, C))
    return Y, SylvesterResiduals(A, B, factors, Y, no_columns(C))


def _backward(residuals: SylvesterResiduals, dY: Matrices, method: Method) -> tuple[Left, Right, Matrices]:
    A, B, factors, Y, like_C = residuals
    Aw, Bw, Yw, dYw = wide(A, B, Y, dY)
    dC = _solve(factors, dYw, transpose=True) if factors else sylvester_by_sign(Aw.mT, Bw.mT, dYw)
    dA, dB = -product(dC, Yw.mT), -product(Yw.mT, dC)
    return cast(dA, A.dtype), cast(dB, B.dtype), cast(dC, like_C.dtype)


def _kronecker_sum(A: Left, B: Right) -> Inexact[Array, "*batch mn mn"]:
    """A ⊗ I + I ⊗ Bᵀ, the matrix of Y -> A Y + Y B on Y's elements, row by row."""
    return _kron(A, jnp.eye(B.shape[-1], dtype=B.dtype)) + _kron(jnp.eye(A.shape[-1], dtype=A.dtype), B.mT)


def _kron(A: Inexact[Array, "*left m m"], B: Inexact[Array, "*right n n"]) -> Inexact[Array, "*batch mn mn"]:
    """A ⊗ B of each matrix, the matrix of Y -> A Y Bᵀ on Y's elements, row by row."""
    m, n = A.shape[-1], B.shape[-1]
    blocks = jnp.einsum("...ij,...kl->...ikjl", A, B)
    return blocks.reshape(*blocks.shape[:-4], m * n, m * n)


def _solve(factors: Factorization, C: Matrices, *, transpose: bool = False) -> Matrices:
    """The elements of C, row by row, as the right-hand side."""

    def solve(factors: Factorization, C: Array) -> Array:
        column = C.reshape(*C.shape[:-2], C.shape[-2] * C.shape[-1], 1)
        return lu_solve(*factors, column, transpose=transpose).reshape(C.shape)

    return meshes.along_batch(solve, factors, C)
