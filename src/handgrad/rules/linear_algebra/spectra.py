"""Eigenvalues of a symmetric matrix, and singular values of any, with their vectors."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from handgrad.checks import check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Like,
    Matrices,
    Square,
    adjoint,
    check_matrices,
    check_outputs,
    check_square,
    no_columns,
    product,
    real_dtype,
    rounding_of,
    symmetric,
    thin_svd,
)

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

EigenPair = tuple[Float[Array, "*batch n"], Square]


class SymmetricEigenResiduals(NamedTuple):
    """The decomposition: S and V, in float32 at least; like: X's dtype."""

    S: Float[Array, "*batch n"]
    V: Square
    like: Like


def symmetric_eigen_forward(X: Square) -> tuple[EigenPair, SymmetricEigenResiduals]:
    """X = V diag(S) Vᵀ, Vᵀ V = I, eigenvalues S in ascending order; each column of V has LAPACK's sign.

    X is read as (X + Xᵀ) / 2, as by jnp.linalg.eigh.

    Derivation: docs/derivations/linear_algebra/spectra.md (Giles 2008)
    """
    check_square("symmetric_eigen_forward", "X", X)
    S, V = jnp.linalg.eigh(*wide(X), symmetrize_input=True)
    return (S.astype(real_dtype(X.dtype)), V.astype(X.dtype)), SymmetricEigenResiduals(S, V, no_columns(X))


def symmetric_eigen_backward(residuals: SymmetricEigenResiduals, dY: EigenPair) -> tuple[Square]:
    """Pull dY = (dS, dV) back through X = V diag(S) Vᵀ.

        dX = ½ (M + Mᵀ),  M = V (diag(dS) + F ∘ (Vᵀ dV)) Vᵀ      F_ij = 1 / (s_j − s_i)

    F is 0 on the diagonal, and where two eigenvalues are equal to rounding (8 n eps of the largest). Within such a
    group the choice of vectors is arbitrary and their derivative undefined; the derivation says for which functions of
    S and V the gradient is right all the same.

    Derivation: docs/derivations/linear_algebra/spectra.md
    """
    S, V, like = check_residuals("symmetric_eigen_backward", residuals, SymmetricEigenResiduals)
    where = "symmetric_eigen_backward"
    dS, dV = wide(*check_outputs(where, dY, like.dtype, real=("dS",), dS=S.shape, dV=V.shape))
    row, column = jnp.expand_dims(S, -2), jnp.expand_dims(S, -1)
    F = _reciprocal(row - column, jnp.expand_dims(rounding_of(S), -1))
    M = product(V, _diagonal(dS) + F * product(adjoint(V), dV.conj()), adjoint(V))
    return (symmetric(M).conj().astype(like.dtype),)


symmetric_eigen = Rule(symmetric_eigen_forward, symmetric_eigen_backward)

Svd = tuple[Inexact[Array, "*batch m k"], Float[Array, "*batch k"], Inexact[Array, "*batch k n"]]


class SvdResiduals(NamedTuple):
    """The decomposition: U, S and Vt, in float32 at least; like: X's dtype."""

    U: Inexact[Array, "*batch m k"]
    S: Float[Array, "*batch k"]
    Vt: Inexact[Array, "*batch k n"]
    like: Like


def svd_forward(X: Matrices) -> tuple[Svd, SvdResiduals]:
    """X = U diag(S) Vᵀ, thin, for a tall, square or wide X: Uᵀ U = Vᵀ V = I, singular values S in descending order.

    The output is (U, S, Vᵀ); each pair of vectors has LAPACK's signs. A matrix with an infinite element gives NaN.

    Derivation: docs/derivations/linear_algebra/spectra.md (Seeger et al. 2017)
    """
    check_matrices("svd_forward", "X", X)
    U, S, Vt = thin_svd(*wide(X))
    outputs = U.astype(X.dtype), S.astype(real_dtype(X.dtype)), Vt.astype(X.dtype)
    return outputs, SvdResiduals(U, S, Vt, no_columns(X))


def svd_backward(residuals: SvdResiduals, dY: Svd) -> tuple[Matrices]:
    """Pull dY = (dU, dS, dVᵀ) back through X = U diag(S) Vᵀ.

        dX = U (G diag(S) + diag(S) H + diag(dS)) Vᵀ + dU⊥ diag(S)⁻¹ Vᵀ + U diag(S)⁻¹ dV⊥ᵀ

        G = F ∘ (Uᵀ dU − dUᵀ U),  H = F ∘ (Vᵀ dV − dVᵀ V)      F_ij = 1 / (s_j² − s_i²)
        dU⊥ = dU − U Uᵀ dU,  dV⊥ = dV − V Vᵀ dV

    F is 0 on the diagonal, and where two singular values are equal to rounding (8 max(m, n) eps of the largest);
    diag(S)⁻¹ is 0 where a singular value is 0 to rounding. There the choice of vectors is arbitrary and their
    derivative undefined; the derivation says for which functions of U, S and V the gradient is right all the same.

    Derivation: docs/derivations/linear_algebra/spectra.md
    """
    U, S, Vt, like = check_residuals("svd_backward", residuals, SvdResiduals)
    shapes = {"dU": U.shape, "dS": S.shape, "dVt": Vt.shape}
    dU, dS, dVt = (d.conj() for d in wide(*check_outputs("svd_backward", dY, like.dtype, real=("dS",), **shapes)))
    V, dV = adjoint(Vt), adjoint(dVt)
    m, n = U.shape[-2], V.shape[-2]
    row, column = jnp.expand_dims(S, -2), jnp.expand_dims(S, -1)  # M ∘ row is M diag(S), M ∘ column is diag(S) M
    rounding = jnp.expand_dims(rounding_of(S, max(m, n)), -1)
    gaps, sums = _reciprocal(row - column, rounding), _reciprocal(row + column, rounding)
    UtdU, VtdV = product(adjoint(U), dU), product(Vt, dV)
    # F is gaps ∘ sums, which could overflow or underflow; s / (s_j + s_i), a share of 1, can't.
    G, H = row * sums * gaps * (UtdU - adjoint(UtdU)), column * sums * gaps * (VtdV - adjoint(VtdV))
    inverse = _reciprocal(row, rounding)
    inner = G + H + _diagonal(dS)
    if jnp.iscomplexobj(U):
        inner = inner + _diagonal(1j * jnp.diagonal(UtdU, axis1=-2, axis2=-1).imag * jnp.squeeze(inverse, -2))
    dX = product(U, inner, Vt)
    if m > n:
        dX = dX + product((dU - product(U, UtdU)) * inverse, Vt)
    if n > m:
        dX = dX + product(U, adjoint((dV - product(V, VtdV)) * inverse))
    return (dX.conj().astype(like.dtype),)


svd = Rule(svd_forward, svd_backward)


def _diagonal(S: Inexact[Array, "*batch n"]) -> Square:
    """diag(S)."""
    ones = jnp.expand_dims(jnp.eye(S.shape[-1], dtype=S.dtype), tuple(range(S.ndim - 1)))
    return jnp.expand_dims(S, -1) * ones


def _reciprocal(D: Float[Array, "*batch #k k"], rounding: Float[Array, "*batch 1 1"]) -> Float[Array, "*batch #k k"]:
    """1 / D, and 0 where D is 0 to rounding."""
    zero = jnp.abs(D) <= rounding
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, D))
