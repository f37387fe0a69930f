"""Norms of a matrix: Frobenius, and nuclear."""

from typing import NamedTuple

import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Matrices,
    Numbers,
    check_matrices,
    product,
    real_dtype,
    size_exponent,
    thin_svd,
    times_power,
    to_matrices,
)

__all__ = [
    "FrobeniusNormResiduals",
    "NuclearNormResiduals",
    "frobenius_norm",
    "frobenius_norm_backward",
    "frobenius_norm_forward",
    "nuclear_norm",
    "nuclear_norm_backward",
    "nuclear_norm_forward",
]


class FrobeniusNormResiduals(NamedTuple):
    """X, the argument, and Y, the norm, in float32 at least."""

    X: Matrices
    Y: Numbers


def frobenius_norm_forward(X: Matrices) -> tuple[Numbers, FrobeniusNormResiduals]:
    """Y = (Σ x_ij²)^½, scaled by a power of two before squaring, so that no square overflows or underflows.

    Derivation: docs/derivations/linear_algebra/norms.md
    """
    check_matrices("frobenius_norm_forward", "X", X)
    (Xw,) = wide(X)
    e = size_exponent(Xw)
    Y = times_power(jnp.linalg.norm(times_power(Xw, to_matrices(-e)), axis=(-2, -1)), e)
    return Y.astype(real_dtype(X.dtype)), FrobeniusNormResiduals(X, Y)


def frobenius_norm_backward(residuals: FrobeniusNormResiduals, dY: Numbers) -> tuple[Matrices]:
    """Pull dY back through Y = ‖X‖.

        dX = dY X / Y      0 where X = 0

    The norm is not differentiable at X = 0; dX is the smallest of its subgradients there. (JAX's own is NaN.)

    Derivation: docs/derivations/linear_algebra/norms.md
    """
    X, Y = check_residuals("frobenius_norm_backward", residuals, FrobeniusNormResiduals)
    check_cotangent("frobenius_norm_backward", dY, Y.shape, real_dtype(X.dtype))
    direction = wide(X)[0].conj() / to_matrices(jnp.where(Y == 0, 1, Y))  # dY / Y may overflow
    return ((to_matrices(dY.astype(Y.dtype)) * direction).astype(X.dtype),)


frobenius_norm = Rule(frobenius_norm_forward, frobenius_norm_backward)


class NuclearNormResiduals(NamedTuple):
    """P = U Vᵀ, the orthogonal factor of X's polar decomposition: dX is a multiple of it."""

    P: Matrices


def nuclear_norm_forward(X: Matrices) -> tuple[Numbers, NuclearNormResiduals]:
    """Y = Σ s_i, the sum of X's singular values.

    Derivation: docs/derivations/linear_algebra/norms.md
    """
    check_matrices("nuclear_norm_forward", "X", X)
    U, S, Vt = thin_svd(*wide(X))
    return jnp.sum(S, axis=-1).astype(real_dtype(X.dtype)), NuclearNormResiduals(product(U, Vt).astype(X.dtype))


def nuclear_norm_backward(residuals: NuclearNormResiduals, dY: Numbers) -> tuple[Matrices]:
    """Pull dY back through Y = Σ s_i.

        dX = dY U Vᵀ

    The norm is not differentiable where a singular value is 0: U Vᵀ, with the vectors that LAPACK returned, is one of
    its subgradients there, as in JAX. Where singular values are equal it is differentiable.

    Derivation: docs/derivations/linear_algebra/norms.md
    """
    (P,) = check_residuals("nuclear_norm_backward", residuals, NuclearNormResiduals)
    check_cotangent("nuclear_norm_backward", dY, P.shape[:-2], real_dtype(P.dtype))
    return (to_matrices(dY) * P.conj(),)


nuclear_norm = Rule(nuclear_norm_forward, nuclear_norm_backward)
