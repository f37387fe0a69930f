"""Norms of a matrix: Frobenius, and nuclear."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rules.linear_algebra._matrices import (
    check_matrices,
    exponent,
    product,
    svd,
    times_power,
    to_matrices,
    working,
)
from handgrad.rules.rule import Rule

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

Array = jax.Array


class FrobeniusNormResiduals(NamedTuple):
    """The argument and the norm.

    Attributes:
      X: (batch, ..., m, n) the argument, a reference.
      Y: (batch, ...) the norm, float32 at least.
    """

    X: Array
    Y: Array


def frobenius_norm_forward(X: Array) -> tuple[Array, FrobeniusNormResiduals]:
    """Y = (Σ x_ij²)^½, of numbers of any size: they are divided by a power of two before they are squared.

    Args:
      X: (batch, ..., m, n) floating point.
    Returns:
      Y (batch, ...); residuals.
    Raises:
      InputError: X is not floating point, or has no batch of matrices.
    Derivation: docs/derivations/linear_algebra/norms.md
    """
    check_matrices("frobenius_norm_forward", "X", X)
    (Xw,) = working(X)
    e = exponent(jnp.max(jnp.abs(Xw), axis=(-2, -1), initial=0))
    Y = times_power(jnp.linalg.norm(times_power(Xw, to_matrices(-e)), axis=(-2, -1)), e)
    return Y.astype(X.dtype), FrobeniusNormResiduals(X, Y)


def frobenius_norm_backward(residuals: FrobeniusNormResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = ‖X‖.

        dX = dY X / Y      0 where X = 0

    The norm has a kink at X = 0; of its subgradients there, the smallest is taken. (JAX's own gradient is NaN.)

    Args:
      residuals: FrobeniusNormResiduals of frobenius_norm_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/norms.md
    """
    X, Y = check_residuals("frobenius_norm_backward", residuals, FrobeniusNormResiduals)
    check_cotangent("frobenius_norm_backward", dY, Y.shape, X.dtype)
    direction = X.astype(Y.dtype) / to_matrices(jnp.where(Y == 0, 1, Y))  # dY / Y may overflow
    return ((to_matrices(dY.astype(Y.dtype)) * direction).astype(X.dtype),)


frobenius_norm = Rule(frobenius_norm_forward, frobenius_norm_backward)


class NuclearNormResiduals(NamedTuple):
    """P: (batch, ..., m, n) U Vᵀ, the orthogonal part of X: dX but for dY."""

    P: Array


def nuclear_norm_forward(X: Array) -> tuple[Array, NuclearNormResiduals]:
    """Y = Σ s_i, the sum of X's singular values.

    Args:
      X: (batch, ..., m, n) floating point.
    Returns:
      Y (batch, ...); residuals.
    Raises:
      InputError: X is not floating point, or has no batch of matrices.
    Derivation: docs/derivations/linear_algebra/norms.md
    """
    check_matrices("nuclear_norm_forward", "X", X)
    U, S, Vt = svd(*working(X))
    return jnp.sum(S, axis=-1).astype(X.dtype), NuclearNormResiduals(product(U, Vt).astype(X.dtype))


def nuclear_norm_backward(residuals: NuclearNormResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = Σ s_i.

        dX = dY U Vᵀ

    At a singular value 0 the norm has a kink: U Vᵀ, with whichever vectors the decomposition chose there, is one of
    its subgradients, as in JAX. Equal singular values are no kink.

    Args:
      residuals: NuclearNormResiduals of nuclear_norm_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/norms.md
    """
    (P,) = check_residuals("nuclear_norm_backward", residuals, NuclearNormResiduals)
    check_cotangent("nuclear_norm_backward", dY, P.shape[:-2], P.dtype)
    return (to_matrices(dY) * P,)


nuclear_norm = Rule(nuclear_norm_forward, nuclear_norm_backward)
