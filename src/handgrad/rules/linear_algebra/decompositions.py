"""Decompositions into a triangular factor: Cholesky and QR."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from handgrad import meshes
from handgrad.checks import check_cotangent, check_residuals
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
    cholesky_factor,
    no_columns,
    product,
    size_exponent,
    substitute,
    symmetric,
    times_power,
    to_matrices,
)

__all__ = [
    "CholeskyResiduals",
    "QrResiduals",
    "cholesky",
    "cholesky_backward",
    "cholesky_forward",
    "qr",
    "qr_backward",
    "qr_forward",
]


class CholeskyResiduals(NamedTuple):
    """L, the factor, in float32 at least; like: X's dtype."""

    L: Square
    like: Like


def cholesky_forward(X: Square) -> tuple[Square, CholeskyResiduals]:
    """X = L Lᵀ, L lower triangular with a positive diagonal.

    X is read as (X + Xᵀ) / 2, as by jnp.linalg.cholesky. Where that is not positive definite, L is NaN.

    Derivation: docs/derivations/linear_algebra/decompositions.md (Murray 2016)
    """
    check_square("cholesky_forward", "X", X)
    (Xw,) = wide(X)
    L = cholesky_factor(Xw)
    return L.astype(X.dtype), CholeskyResiduals(L, no_columns(X))


def cholesky_backward(residuals: CholeskyResiduals, dL: Square) -> tuple[Square]:
    """Pull dL back through X = L Lᵀ.

        dX = ½ (M + Mᵀ),  M = L⁻ᵀ Φ(Lᵀ dL) L⁻¹      Φ: the lower triangle, with half of the diagonal

    dL is ignored above its diagonal, where L is a constant 0.

    Derivation: docs/derivations/linear_algebra/decompositions.md
    """
    L, like = check_residuals("cholesky_backward", residuals, CholeskyResiduals)
    check_cotangent("cholesky_backward", dL, L.shape, like.dtype, name="dL", of="L")
    (dLw,) = wide(dL.conj())
    half = _lower_half(product(adjoint(L), jnp.tril(dLw)))
    left = substitute(L, half, transpose=True, conjugate=True)
    M = adjoint(substitute(L, adjoint(left), transpose=True, conjugate=True))
    return (symmetric(M).conj().astype(like.dtype),)


cholesky = Rule(cholesky_forward, cholesky_backward)

Orthonormal = Inexact[Array, "*batch m k"]  # k = min(m, n)
Triangle = Inexact[Array, "*batch k n"]


class QrResiduals(NamedTuple):
    """Q and R, both factors, in float32 at least; like: X's dtype."""

    Q: Orthonormal
    R: Triangle
    like: Like


def qr_forward(X: Matrices) -> tuple[tuple[Orthonormal, Triangle], QrResiduals]:
    """X = Q R, reduced, for a tall, square or wide X: Qᵀ Q = I, R upper triangular.

    R's diagonal may have either sign, as LAPACK leaves it.

    Derivation: docs/derivations/linear_algebra/decompositions.md (Seeger et al. 2017)
    """
    check_matrices("qr_forward", "X", X)
    (Xw,) = wide(X)
    Q, R = meshes.along_batch(jnp.linalg.qr, Xw)
    return (Q.astype(X.dtype), R.astype(X.dtype)), QrResiduals(Q, R, no_columns(X))


def qr_backward(residuals: QrResiduals, dY: tuple[Orthonormal, Triangle]) -> tuple[Matrices]:
    """Pull dY = (dQ, dR) back through X = Q R.

        dX = (dQ + Q copyltu(M)) R⁻ᵀ,  M = R dRᵀ − dQᵀ Q

    copyltu mirrors the lower triangle to the top. A wide X is [X₁ X₂], R is [R₁ R₂], and X₂ = Q R₂ is a product:
    dX₂ = Q dR₂, and dQ gains X₂ dR₂ᵀ. dR is ignored below its diagonal, where R is a constant 0.

    Where columns are linearly dependent (X₁'s, in a wide X) Q is not differentiable, and dX is infinite or NaN.

    Derivation: docs/derivations/linear_algebra/decompositions.md
    """
    Q, R, like = check_residuals("qr_backward", residuals, QrResiduals)
    dQ, dR = (d.conj() for d in wide(*check_outputs("qr_backward", dY, like.dtype, dQ=Q.shape, dR=R.shape)))
    k, e = Q.shape[-1], to_matrices(size_exponent(R))
    R, dQ = times_power(R, -e), times_power(dQ, -e)  # the same dX, and no product that overflows on the way
    R2, dR2 = R[..., k:], dR[..., k:]
    R, dR = R[..., :k], jnp.triu(dR[..., :k])
    dQ = dQ + product(Q, R2, adjoint(dR2))
    M = product(R, adjoint(dR)) - product(adjoint(dQ), Q)
    below = jnp.tril(M, -1)
    mirrored = below + adjoint(below) + _diagonal(M).real
    dX = adjoint(substitute(R, adjoint(dQ + product(Q, mirrored)), lower=False))
    return (jnp.concatenate([dX, product(Q, dR2)], axis=-1).conj().astype(like.dtype),)


qr = Rule(qr_forward, qr_backward)


def _diagonal(M: Square) -> Square:
    """M, and 0 off its diagonal."""
    return jnp.tril(jnp.triu(M))


def _lower_half(M: Square) -> Square:
    """Φ(M): the lower triangle, with half of the diagonal, so that Φ(M) + Φ(M)ᵀ = M for a symmetric M."""
    return (jnp.tril(M) + jnp.tril(M, -1)) / 2
