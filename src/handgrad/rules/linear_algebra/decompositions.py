"""Decompositions that end in a triangle: Cholesky and QR."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_cotangent, check_residuals
from handgrad.rules.linear_algebra._matrices import (
    check_matrices,
    check_outputs,
    check_square,
    cholesky_factor,
    no_columns,
    product,
    substitute,
    symmetric,
    working,
)
from handgrad.rules.rule import Rule

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

Array = jax.Array


class CholeskyResiduals(NamedTuple):
    """The factor.

    Attributes:
      L: (batch, ..., n, n) lower triangle, float32 at least.
      like: (batch, ..., n, 0) no number, X's dtype.
    """

    L: Array
    like: Array


def cholesky_forward(X: Array) -> tuple[Array, CholeskyResiduals]:
    """X = L Lᵀ, L a lower triangle with a positive diagonal.

    X is read as (X + Xᵀ) / 2, as jnp.linalg.cholesky does. Where that is not positive definite, L is NaN.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      L like X; residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/decompositions.md (Murray 2016)
    """
    check_square("cholesky_forward", "X", X)
    (Xw,) = working(X)
    L = cholesky_factor(Xw)
    return L.astype(X.dtype), CholeskyResiduals(L, no_columns(X))


def cholesky_backward(residuals: CholeskyResiduals, dL: Array) -> tuple[Array]:
    """Pull dL back through X = L Lᵀ.

        dX = ½ (M + Mᵀ),  M = L⁻ᵀ Φ(Lᵀ dL) L⁻¹      Φ: the lower triangle, with half of the diagonal

    Args:
      residuals: CholeskyResiduals of cholesky_forward.
      dL: like L, cotangent of L. What stands above the diagonal meets a constant 0 and is left aside.
    Returns:
      dX like X, symmetric.
    Raises:
      InputError: residuals of another rule; dL not of L's shape and dtype.
    Derivation: docs/derivations/linear_algebra/decompositions.md
    """
    L, like = check_residuals("cholesky_backward", residuals, CholeskyResiduals)
    check_cotangent("cholesky_backward", dL, L.shape, like.dtype, name="dL", of="L")
    (dLw,) = working(dL)
    half = _lower_half(product(L.mT, jnp.tril(dLw)))
    left = substitute(L, half, transpose=True)
    M = substitute(L, left.mT, transpose=True).mT
    return (symmetric(M).astype(like.dtype),)


cholesky = Rule(cholesky_forward, cholesky_backward)


class QrResiduals(NamedTuple):
    """Both factors.

    Attributes:
      Q: (batch, ..., m, k) orthonormal columns, k = min(m, n), float32 at least.
      R: (batch, ..., k, n) upper triangle, float32 at least.
      like: (batch, ..., m, 0) no number, X's dtype.
    """

    Q: Array
    R: Array
    like: Array


def qr_forward(X: Array) -> tuple[tuple[Array, Array], QrResiduals]:
    """X = Q R, reduced: Qᵀ Q = I, R an upper triangle; its diagonal may have either sign, as LAPACK leaves it.

    Args:
      X: (batch, ..., m, n) floating point, tall, square or wide.
    Returns:
      (Q (batch, ..., m, k), R (batch, ..., k, n)), k = min(m, n); residuals.
    Raises:
      InputError: X is not floating point, or has no batch of matrices.
    Derivation: docs/derivations/linear_algebra/decompositions.md (Seeger et al. 2017)
    """
    check_matrices("qr_forward", "X", X)
    (Xw,) = working(X)
    Q, R = meshes.along_batch(jnp.linalg.qr, Xw)
    return (Q.astype(X.dtype), R.astype(X.dtype)), QrResiduals(Q, R, no_columns(X))


def qr_backward(residuals: QrResiduals, dY: tuple[Array, Array]) -> tuple[Array]:
    """Pull dQ and dR back through X = Q R.

        dX = (dQ + Q copyltu(M)) R⁻ᵀ,  M = R dRᵀ − dQᵀ Q

    copyltu mirrors the lower triangle to the top. A wide X is [X₁ X₂], R is [R₁ R₂], and X₂ = Q R₂ is a product:
    dX₂ = Q dR₂, and dQ gains X₂ dR₂ᵀ. Columns that depend on each other (X₁'s, in a wide X) make R singular and dX
    infinite or NaN: Q is not differentiable there.

    Args:
      residuals: QrResiduals of qr_forward.
      dY: (dQ, dR), cotangents of Q and R. What dR has below the diagonal meets a constant 0 and is left aside.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dQ or dR not of Q's or R's shape and dtype.
    Derivation: docs/derivations/linear_algebra/decompositions.md
    """
    Q, R, like = check_residuals("qr_backward", residuals, QrResiduals)
    dQ, dR = check_outputs("qr_backward", dY, "dQ", "dR")
    check_cotangent("qr_backward", dQ, Q.shape, like.dtype, name="dQ", of="Q")
    check_cotangent("qr_backward", dR, R.shape, like.dtype, name="dR", of="R")
    dQ, dR = working(dQ, dR)
    k = Q.shape[-1]
    R2, dR2 = R[..., k:], dR[..., k:]
    R, dR = R[..., :k], jnp.triu(dR[..., :k])
    dQ = dQ + product(Q, R2, dR2.mT)
    lower = jnp.tril(product(R, dR.mT) - product(dQ.mT, Q))
    mirrored = lower + jnp.tril(lower, -1).mT
    dX = substitute(R, (dQ + product(Q, mirrored)).mT, lower=False).mT
    return (jnp.concatenate([dX, product(Q, dR2)], axis=-1).astype(like.dtype),)


qr = Rule(qr_forward, qr_backward)


def _lower_half(M: Array) -> Array:
    """Φ(M): the lower triangle, with half of the diagonal, so that Φ(M) + Φ(M)ᵀ = M for a symmetric M."""
    return (jnp.tril(M) + jnp.tril(M, -1)) / 2
