"""A diagonal plus a matrix of low rank: its systems and its determinant, without the n by n matrix."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from handgrad.checks import check_array, check_cotangent, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Columns,
    Like,
    Numbers,
    as_columns,
    cast,
    check_matrices,
    check_outputs,
    check_rows,
    identity_of,
    lu_factor,
    lu_solve,
    no_columns,
    product,
    real_dtype,
    sign_and_logarithm,
    to_matrices,
    turning,
)

__all__ = [
    "LowRankLogDeterminantResiduals",
    "LowRankSolveResiduals",
    "low_rank_log_determinant",
    "low_rank_log_determinant_backward",
    "low_rank_log_determinant_forward",
    "low_rank_solve",
    "low_rank_solve_backward",
    "low_rank_solve_forward",
]

Diagonal = Inexact[Array, "*batch n"]
Thin = Inexact[Array, "*batch n r"]
Small = Inexact[Array, "*batch r r"]
Pivots = Int[Array, "*batch r"]


class LowRankSolveResiduals(NamedTuple):
    """The matrix, the factorization of its small one, and the solution.

    Attributes:
      d, U, V: the arguments.
      LU, pivots: of K = I + Vᵀ diag(d)⁻¹ U, (r, r).
      Y: the output.
      VtY: Vᵀ Y, from the small system, without a cancellation.
      like_B: B's dtype.
    """

    d: Diagonal
    U: Thin
    V: Thin
    LU: Small
    pivots: Pivots
    Y: Columns
    VtY: Inexact[Array, "*batch r k"]
    like_B: Like


def low_rank_solve_forward(d: Diagonal, U: Thin, V: Thin, B: Columns) -> tuple[Columns, LowRankSolveResiduals]:
    """Y = M⁻¹ B for M = diag(d) + U Vᵀ, by Woodbury's identity: n r² operations in place of n³.

    No element of d is 0, and digits are lost where one is small beside M. M is never formed.

    Args:
      d: (..., n).
      U, V: (..., n, r).
      B: (..., n, k), or (..., n), which makes Y a vector too.
    Derivation: docs/derivations/linear_algebra/low_rank.md (Woodbury 1950)
    """
    _check("low_rank_solve_forward", d, U, V)
    check_rows("low_rank_solve_forward", U, B, name="U")
    dw, Uw, Vw, Bw = wide(d, U, V, B)
    LU, pivots = _factor(dw, Uw, Vw)
    Y, VtY = _woodbury(dw, Uw, Vw, LU, pivots, as_columns(Bw, U.ndim), transpose=False)
    Y = Y.reshape(B.shape).astype(jnp.result_type(d, U, V, B))
    return Y, LowRankSolveResiduals(d, U, V, LU, pivots, Y, VtY, no_columns(B))


def low_rank_solve_backward(residuals: LowRankSolveResiduals, dY: Columns) -> tuple[Diagonal, Thin, Thin, Columns]:
    """Pull dY back through Y = M⁻¹ B, M = diag(d) + U Vᵀ.

        dB = M⁻ᵀ dY      dd = −(dB ∘ Y) 1      dU = −dB (Yᵀ V)      dV = −Y (dBᵀ U)

    Derivation: docs/derivations/linear_algebra/low_rank.md
    """
    d, U, V, LU, pivots, Y, VtY, like_B = check_residuals("low_rank_solve_backward", residuals, LowRankSolveResiduals)
    check_cotangent("low_rank_solve_backward", dY, Y.shape, Y.dtype)
    dw, Uw, Vw, Yw, dYw = wide(d, U, V, Y, dY)
    Yw, dYw = as_columns(Yw, U.ndim), as_columns(dYw, U.ndim)
    dB, UtdB = _woodbury(dw, Vw, Uw, LU, pivots, dYw, transpose=True)
    dd = -jnp.sum(dB * Yw, axis=-1)
    dU, dV = -product(dB, VtY.mT), -product(Yw, UtdB.mT)
    return cast(dd, d.dtype), cast(dU, U.dtype), cast(dV, V.dtype), cast(dB, like_B.dtype).reshape(Y.shape)


low_rank_solve = Rule(low_rank_solve_forward, low_rank_solve_backward)


class LowRankLogDeterminantResiduals(NamedTuple):
    """The matrix, and the factorization of its small one.

    Attributes:
      S: the sign, an output; the derivative of a complex one takes it.
      d, U, V: the arguments.
      LU, pivots: of K = I + Vᵀ diag(d)⁻¹ U, (r, r).
    """

    S: Numbers
    d: Diagonal
    U: Thin
    V: Thin
    LU: Small
    pivots: Pivots


def low_rank_log_determinant_forward(
    d: Diagonal, U: Thin, V: Thin
) -> tuple[tuple[Numbers, Numbers], LowRankLogDeterminantResiduals]:
    """S = sign det M and Y = log |det M| for M = diag(d) + U Vᵀ: det M = det diag(d) · det K (the determinant lemma).

    Arguments as for `low_rank_solve`.

    Derivation: docs/derivations/linear_algebra/low_rank.md (Harville 1997)
    """
    _check("low_rank_log_determinant_forward", d, U, V)
    dw, Uw, Vw = wide(d, U, V)
    LU, pivots = _factor(dw, Uw, Vw)
    sign, logarithm = sign_and_logarithm(LU, pivots)
    S = jnp.prod(jnp.sign(dw), axis=-1) * sign
    Y = jnp.sum(jnp.log(jnp.abs(dw)), axis=-1) + logarithm
    dtype = jnp.result_type(d, U, V)
    return (S.astype(dtype), Y.astype(real_dtype(dtype))), LowRankLogDeterminantResiduals(S, d, U, V, LU, pivots)


def low_rank_log_determinant_backward(
    residuals: LowRankLogDeterminantResiduals, dY: tuple[Numbers, Numbers]
) -> tuple[Diagonal, Thin, Thin]:
    """Pull dY = (dS, dY) back through Y = log |det M|, M = diag(d) + U Vᵀ.

        dV = dY P,  P = M⁻¹ U = diag(d)⁻¹ U K⁻¹
        dU = dY M⁻ᵀ V = dY diag(d)⁻¹ V K⁻ᵀ
        dd = dY (1 − (P ∘ V) 1) / d

    A real S is piecewise constant, so dS is ignored; where S is complex, dY gains i Im (dS S).

    Derivation: docs/derivations/linear_algebra/low_rank.md
    """
    where = "low_rank_log_determinant_backward"
    S, d, U, V, LU, pivots = check_residuals(where, residuals, LowRankLogDeterminantResiduals)
    dtype = jnp.result_type(d, U, V)
    dS, dy = check_outputs(where, dY, dtype, real=("dY",), dS=S.shape, dY=S.shape)
    slope = to_matrices(turning(dS, dy, S))
    dw, Uw, Vw = (as_columns(M, U.ndim) for M in wide(d, U, V))
    P = lu_solve(LU, pivots, (Uw / dw).mT, transpose=True).mT
    Q = lu_solve(LU, pivots, (Vw / dw).mT).mT
    dd = slope * (1 - jnp.sum(P * Vw, axis=-1, keepdims=True)) / dw
    return cast(dd[..., 0], d.dtype), cast(slope * Q, U.dtype), cast(slope * P, V.dtype)


low_rank_log_determinant = Rule(low_rank_log_determinant_forward, low_rank_log_determinant_backward)


def _check(where: str, d: Array, U: Array, V: Array) -> None:
    check_matrices(where, "U", U, "(..., n, r)")
    check_array(where, "d", d, allow_complex=True)
    check_shape(where, "d", d, U.shape[:-1], f"to match U {tuple(U.shape)}")
    check_array(where, "V", V, allow_complex=True)
    check_shape(where, "V", V, U.shape, "to match U")


def _factor(d: Diagonal, U: Thin, V: Thin) -> tuple[Small, Pivots]:
    """LU and pivots of K = I + Vᵀ diag(d)⁻¹ U."""
    small = product(V.mT, U / jnp.expand_dims(d, -1))
    return lu_factor(identity_of(small) + small)


def _woodbury(
    d: Diagonal, U: Thin, V: Thin, LU: Small, pivots: Pivots, B: Inexact[Array, "*batch n k"], *, transpose: bool
) -> tuple[Inexact[Array, "*batch n k"], Inexact[Array, "*batch r k"]]:
    """Y = (diag(d) + U Vᵀ)⁻¹ B = Z − diag(d)⁻¹ U Vᵀ Y and Vᵀ Y = K⁻¹ Vᵀ Z, Z = diag(d)⁻¹ B; K's factors may be those of
    its transpose.
    """
    column = jnp.expand_dims(d, -1)
    Z = B / column
    VtY = lu_solve(LU, pivots, product(V.mT, Z), transpose=transpose)
    return Z - product(U, VtY) / column, VtY
