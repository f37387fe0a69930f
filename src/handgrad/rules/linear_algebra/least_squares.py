"""Least squares and the pseudo-inverse, of tall and of wide matrices."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from handgrad import meshes
from handgrad.checks import InputError, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Columns,
    Like,
    Matrices,
    Square,
    adjoint,
    as_columns,
    cast,
    check_matrices,
    check_rows,
    no_columns,
    product,
    rounding_of,
    substitute,
    thin_svd,
)

__all__ = [
    "LeastSquaresResiduals",
    "PseudoInverseResiduals",
    "least_squares",
    "least_squares_backward",
    "least_squares_forward",
    "pseudo_inverse",
    "pseudo_inverse_backward",
    "pseudo_inverse_forward",
]


Given = Inexact[Array, "*batch m k"] | Inexact[Array, "*batch m"]


class LeastSquaresResiduals(NamedTuple):
    """The factorization, and the solution.

    Attributes:
      A, B: the arguments, for what A Y misses of B.
      Q, R: of A = Q R where A is tall, of Aᵀ = Q R where it is wide; in float32 at least.
      Y: the output, for dA.
    """

    A: Matrices
    B: Given
    Q: Inexact[Array, "*batch long short"]
    R: Inexact[Array, "*batch short short"]
    Y: Columns


def least_squares_forward(A: Matrices, B: Given) -> tuple[Columns, LeastSquaresResiduals]:
    """Y = A⁺ B, by QR: the minimum of ‖A Y − B‖ for a tall A; for a wide A the shortest Y with A Y = B.

    A has full rank: its n columns, or its m rows, are linearly independent. Else Y has infinities, NaN, or no digits,
    and `pseudo_inverse` gives the answer.

    Args:
      A: (..., m, n).
      B: (..., m, k), or (..., m), which makes Y a vector too.
    Derivation: docs/derivations/linear_algebra/least_squares.md (Golub and Pereyra 1973)
    """
    check_matrices("least_squares_forward", "A", A)
    check_rows("least_squares_forward", A, B, "m")
    Aw, Bw = wide(A, B)
    tall = A.shape[-2] >= A.shape[-1]
    Q, R = meshes.along_batch(jnp.linalg.qr, Aw if tall else adjoint(Aw))
    columns = as_columns(Bw, A.ndim)
    Y = substitute(R, product(adjoint(Q), columns), lower=False) if tall else product(Q, _by_adjoint(R, columns))
    Y = Y.reshape(*A.shape[:-2], A.shape[-1], *B.shape[A.ndim - 1 :]).astype(jnp.result_type(A, B))
    return Y, LeastSquaresResiduals(A, B, Q, R, Y)


def least_squares_backward(residuals: LeastSquaresResiduals, dY: Columns) -> tuple[Matrices, Given]:
    """Pull dY back through Y = A⁺ B.

        dB = A⁺ᵀ dY
        dA = −dB Yᵀ + (B − A Y) (A⁺ dB)ᵀ        A tall
        dA = −dB Yᵀ + A⁺ᵀ Y (dY − Aᵀ dB)ᵀ       A wide

    Derivation: docs/derivations/linear_algebra/least_squares.md
    """
    A, B, Q, R, Y = check_residuals("least_squares_backward", residuals, LeastSquaresResiduals)
    check_cotangent("least_squares_backward", dY, Y.shape, Y.dtype)
    Aw, Bw, Yw, G = (as_columns(M, A.ndim) for M in wide(A, B, Y, dY.conj()))
    if A.shape[-2] >= A.shape[-1]:
        half = _by_adjoint(R, G)
        dB = product(Q, half)
        dA = product(Bw - product(Aw, Yw), adjoint(substitute(R, half, lower=False)))
    else:
        dB = substitute(R, product(adjoint(Q), G), lower=False)
        Z = substitute(R, product(adjoint(Q), Yw), lower=False)
        dA = product(Z, adjoint(G - product(Q, adjoint(Q), G)))
    dA = (dA - product(dB, adjoint(Yw))).conj()
    return cast(dA, A.dtype), cast(dB.conj(), B.dtype).reshape(B.shape)


least_squares = Rule(least_squares_forward, least_squares_backward)


class PseudoInverseResiduals(NamedTuple):
    """The decomposition X = U diag(S) Vᵀ, in float32 at least.

    Attributes:
      U, Vt: the singular vectors; 0 where the singular value counts as 0.
      inverse: 1 / S, and 0 there.
      like: X's dtype.
    """

    U: Inexact[Array, "*batch m k"]
    inverse: Float[Array, "*batch k"]
    Vt: Inexact[Array, "*batch k n"]
    like: Like


def pseudo_inverse_forward(
    X: Matrices, *, rtol: float | None = None
) -> tuple[Inexact[Array, "*batch n m"], PseudoInverseResiduals]:
    """Y = X⁺ = V diag(1 / S) Uᵀ, of X = U diag(S) Vᵀ, of any rank: a singular value that counts as 0 has 1 / s = 0.

    Args:
      rtol: singular values up to rtol times the largest count as 0; None for 8 max(m, n) eps, where one is a rounding.
    Derivation: docs/derivations/linear_algebra/least_squares.md (Golub and Pereyra 1973)
    """
    where = "pseudo_inverse_forward"
    check_matrices(where, "X", X)
    if not (rtol is None or (isinstance(rtol, int | float) and not isinstance(rtol, bool) and 0 <= rtol < 1)):
        raise InputError(f"{where}: rtol must be None or a number from 0 to 1, got {rtol!r}")
    U, S, Vt = thin_svd(*wide(X))
    least = rounding_of(S, max(X.shape[-2:])) if rtol is None else rtol * jnp.max(S, -1, keepdims=True, initial=0)
    zero = least >= S
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, S))
    U, Vt = jnp.where(jnp.expand_dims(zero, -2), 0, U), jnp.where(jnp.expand_dims(zero, -1), 0, Vt)
    Y = product(adjoint(Vt) * jnp.expand_dims(inverse, -2), adjoint(U))
    return Y.astype(X.dtype), PseudoInverseResiduals(U, inverse, Vt, no_columns(X))


def pseudo_inverse_backward(
    residuals: PseudoInverseResiduals, dY: Inexact[Array, "*batch n m"], *, rtol: float | None = None
) -> tuple[Matrices]:
    """Pull dY back through Y = X⁺.

        dX = −Yᵀ dY Yᵀ + (I − X Y) dYᵀ Y Yᵀ + Yᵀ Y dYᵀ (I − Y X)

    Where singular values count as 0, this is the gradient along changes of X that leave its rank as it is. Along others
    X⁺ jumps, and has no derivative.

    Derivation: docs/derivations/linear_algebra/least_squares.md
    """
    where = "pseudo_inverse_backward"
    U, inverse, Vt, like = check_residuals(where, residuals, PseudoInverseResiduals)
    check_cotangent(where, dY, (*U.shape[:-2], Vt.shape[-1], U.shape[-2]), like.dtype)
    G = wide(dY)[0].conj()
    row, column = jnp.expand_dims(inverse, -2), jnp.expand_dims(inverse, -1)
    UtGt, GtV = product(adjoint(U), adjoint(G)), product(adjoint(G), adjoint(Vt))
    inner = product(UtGt, adjoint(Vt))
    dX = product(U, -column * adjoint(inner) * row, Vt)
    dX = dX + product((GtV - product(U, inner)) * row * row, Vt)
    dX = dX + product(U, column * (column * (UtGt - product(inner, Vt))))  # column² may overflow
    return (dX.conj().astype(like.dtype),)


pseudo_inverse = Rule(pseudo_inverse_forward, pseudo_inverse_backward)


def _by_adjoint(R: Square, B: Inexact[Array, "*batch n k"]) -> Inexact[Array, "*batch n k"]:
    """R⁻ᴴ B."""
    return substitute(R, B, lower=False, transpose=True, conjugate=True)
