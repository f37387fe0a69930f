"""Eigenvalues of a symmetric matrix, and singular values of any: with their vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rules.linear_algebra._matrices import (
    check_matrices,
    check_outputs,
    check_square,
    no_columns,
    product,
    svd as guarded_svd,
    symmetric,
    working,
)
from handgrad.rules.rule import Rule

__all__ = [
    "SvdResiduals",
    "SymmetricEigenResiduals",
    "svd",
    "svd_backward",
    "svd_forward",
    "symmetric_eigen",
    "symmetric_eigen_backward",
    "symmetric_eigen_forward",
]

Array = jax.Array


class SymmetricEigenResiduals(NamedTuple):
    """The decomposition.

    Attributes:
      S: (batch, ..., n) eigenvalues, float32 at least.
      V: (batch, ..., n, n) eigenvectors, one in each column, float32 at least.
      like: (batch, ..., n, 0) no number, X's dtype.
    """

    S: Array
    V: Array
    like: Array


def symmetric_eigen_forward(X: Array) -> tuple[tuple[Array, Array], SymmetricEigenResiduals]:
    """X = V diag(S) Vᵀ, Vᵀ V = I; S ascends, and each column of V has the sign that LAPACK gave it.

    X is read as (X + Xᵀ) / 2, as jnp.linalg.eigh does.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      (S (batch, ..., n), V like X); residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/spectra.md (Giles 2008)
    """
    check_square("symmetric_eigen_forward", "X", X)
    S, V = jnp.linalg.eigh(*working(X), symmetrize_input=True)
    return (S.astype(X.dtype), V.astype(X.dtype)), SymmetricEigenResiduals(S, V, no_columns(X))


def symmetric_eigen_backward(residuals: SymmetricEigenResiduals, dY: tuple[Array, Array]) -> tuple[Array]:
    """Pull dS and dV back through X = V diag(S) Vᵀ.

        dX = ½ (M + Mᵀ),  M = V (diag(dS) + F ∘ (Vᵀ dV)) Vᵀ      F_ij = 1 / (s_j − s_i)

    F is 0 on the diagonal, and where two eigenvalues are equal but for rounding (8 n eps of the largest): within such a
    group the vectors are LAPACK's choice, and no slope belongs to it; the derivation says for which functions that is
    right.

    Args:
      residuals: SymmetricEigenResiduals of symmetric_eigen_forward.
      dY: (dS, dV), cotangents of S and V.
    Returns:
      dX like X, symmetric.
    Raises:
      InputError: residuals of another rule; dS or dV not of S's or V's shape and dtype.
    Derivation: docs/derivations/linear_algebra/spectra.md
    """
    where = "symmetric_eigen_backward"
    S, V, like = check_residuals(where, residuals, SymmetricEigenResiduals)
    dS, dV = check_outputs(where, dY, "dS", "dV")
    check_cotangent(where, dS, S.shape, like.dtype, name="dS", of="S")
    check_cotangent(where, dV, V.shape, like.dtype, name="dV", of="V")
    dS, dV = working(dS, dV)
    F = _reciprocal(_differences(S), _rounding(S, S.shape[-1]))
    M = product(V, _diagonal(dS) + F * product(V.mT, dV), V.mT)
    return (symmetric(M).astype(like.dtype),)


symmetric_eigen = Rule(symmetric_eigen_forward, symmetric_eigen_backward)


class SvdResiduals(NamedTuple):
    """The decomposition.

    Attributes:
      U: (batch, ..., m, k) left vectors, k = min(m, n), float32 at least.
      S: (batch, ..., k) singular values, float32 at least.
      Vt: (batch, ..., k, n) right vectors, one in each row, float32 at least.
      like: (batch, ..., m, 0) no number, X's dtype.
    """

    U: Array
    S: Array
    Vt: Array
    like: Array


def svd_forward(X: Array) -> tuple[tuple[Array, Array, Array], SvdResiduals]:
    """X = U diag(S) Vᵀ, thin: Uᵀ U = Vᵀ V = I; S descends; each pair of vectors has the signs that LAPACK gave it.

    Args:
      X: (batch, ..., m, n) floating point, tall, square or wide.
    Returns:
      (U (batch, ..., m, k), S (batch, ..., k), Vᵀ (batch, ..., k, n)), k = min(m, n); residuals.
    Raises:
      InputError: X is not floating point, or has no batch of matrices.
    Derivation: docs/derivations/linear_algebra/spectra.md (Seeger et al. 2017)
    """
    check_matrices("svd_forward", "X", X)
    U, S, Vt = guarded_svd(*working(X))
    outputs = U.astype(X.dtype), S.astype(X.dtype), Vt.astype(X.dtype)
    return outputs, SvdResiduals(U, S, Vt, no_columns(X))


def svd_backward(residuals: SvdResiduals, dY: tuple[Array, Array, Array]) -> tuple[Array]:
    """Pull dU, dS and dVᵀ back through X = U diag(S) Vᵀ.

        dX = U (G diag(S) + diag(S) H + diag(dS)) Vᵀ + dU⊥ diag(S)⁻¹ Vᵀ + U diag(S)⁻¹ dV⊥ᵀ

        G = F ∘ (Uᵀ dU − dUᵀ U),  H = F ∘ (Vᵀ dV − dVᵀ V)      F_ij = 1 / (s_j² − s_i²)
        dU⊥ = dU − U Uᵀ dU,  dV⊥ = dV − V Vᵀ dV

    F is 0 on the diagonal, and where two singular values are equal but for rounding (8 max(m, n) eps of the largest);
    in diag(S)⁻¹, likewise, a singular value that is 0 but for rounding counts as infinite. There the vectors are
    LAPACK's choice, and no slope belongs to it; the derivation says for which functions that is right.

    Args:
      residuals: SvdResiduals of svd_forward.
      dY: (dU, dS, dVᵀ), cotangents of U, S and Vᵀ.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; a cotangent not of its output's shape and dtype.
    Derivation: docs/derivations/linear_algebra/spectra.md
    """
    U, S, Vt, like = check_residuals("svd_backward", residuals, SvdResiduals)
    dU, dS, dVt = check_outputs("svd_backward", dY, "dU", "dS", "dVt")
    check_cotangent("svd_backward", dU, U.shape, like.dtype, name="dU", of="U")
    check_cotangent("svd_backward", dS, S.shape, like.dtype, name="dS", of="S")
    check_cotangent("svd_backward", dVt, Vt.shape, like.dtype, name="dVt", of="Vt")
    dU, dS, dVt = working(dU, dS, dVt)
    V, dV = Vt.mT, dVt.mT
    m, n = U.shape[-2], V.shape[-2]
    rounding = _rounding(S, max(m, n))
    apart, sums = _reciprocal(_differences(S), rounding), _reciprocal(_sums(S), rounding)
    along, down = jnp.expand_dims(S, -2), jnp.expand_dims(S, -1)  # M ∘ along is M diag(S), M ∘ down is diag(S) M
    turn_U, turn_V = product(U.mT, dU), product(Vt, dV)
    # F is apart ∘ sums, the square of a reciprocal: s / (s_j + s_i) is a share, which neither overflows nor underflows.
    inner = along * sums * apart * (turn_U - turn_U.mT) + down * sums * apart * (turn_V - turn_V.mT) + _diagonal(dS)
    dX = product(U, inner, Vt)
    inverse = _reciprocal(along, rounding)
    if m > n:
        dX = dX + product((dU - product(U, turn_U)) * inverse, Vt)
    if n > m:
        dX = dX + product(U, ((dV - product(V, turn_V)) * inverse).mT)
    return (dX.astype(like.dtype),)


svd = Rule(svd_forward, svd_backward)


def _diagonal(S: Array) -> Array:
    """diag(S) for each S (batch, ..., n)."""
    ones = jnp.expand_dims(jnp.eye(S.shape[-1], dtype=S.dtype), tuple(range(S.ndim - 1)))
    return jnp.expand_dims(S, -1) * ones


def _differences(S: Array) -> Array:
    """s_j − s_i at (i, j)."""
    return jnp.expand_dims(S, -2) - jnp.expand_dims(S, -1)


def _sums(S: Array) -> Array:
    """s_j + s_i at (i, j)."""
    return jnp.expand_dims(S, -2) + jnp.expand_dims(S, -1)


def _rounding(S: Array, n: int) -> Array:
    """8 n eps of the largest, (batch, ..., 1, 1): LAPACK parts equal values of a matrix of size n by 2 n eps or so, and
    a difference below this one has hardly a right digit."""
    largest = jnp.max(jnp.abs(S), axis=-1, initial=0)
    return jnp.expand_dims(8 * n * jnp.finfo(S.dtype).eps * largest, (-2, -1))


def _reciprocal(D: Array, rounding: Array) -> Array:
    """1 / D, and 0 where D is nothing but rounding."""
    nothing = jnp.abs(D) <= rounding
    return jnp.where(nothing, 0, 1 / jnp.where(nothing, 1, D))
