"""The square root and the logarithm of a matrix that need not be symmetric, without eigenvalues."""

from typing import NamedTuple

import jax.numpy as jnp

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._iterations import logarithm, square_root, sylvester_by_sign
from handgrad.rules.linear_algebra._matrices import (
    Like,
    Square,
    check_square,
    no_columns,
    size_exponent,
    times_power,
    to_matrices,
)

__all__ = [
    "MatrixLogarithmResiduals",
    "MatrixSquareRootResiduals",
    "matrix_logarithm",
    "matrix_logarithm_backward",
    "matrix_logarithm_forward",
    "matrix_square_root",
    "matrix_square_root_backward",
    "matrix_square_root_forward",
]


class MatrixSquareRootResiduals(NamedTuple):
    """Y, the output, in float32 at least: both coefficients of dX's equation; like: X's dtype."""

    Y: Square
    like: Like


def matrix_square_root_forward(X: Square) -> tuple[Square, MatrixSquareRootResiduals]:
    """Y with Y Y = X, the principal one, whose eigenvalues have positive real parts.

    It exists where X has no eigenvalue on the negative real axis, nor 0; else Y is NaN. (Of a singular symmetric X,
    `symmetric_function` has the root.)

    Derivation: docs/derivations/linear_algebra/root_and_logarithm.md (Higham 2008)
    """
    check_square("matrix_square_root_forward", "X", X)
    Y = square_root(*wide(X))
    return Y.astype(X.dtype), MatrixSquareRootResiduals(Y, no_columns(X))


def matrix_square_root_backward(residuals: MatrixSquareRootResiduals, dY: Square) -> tuple[Square]:
    """Pull dY back through Y Y = X.

        Yᵀ dX + dX Yᵀ = dY

    Derivation: docs/derivations/linear_algebra/root_and_logarithm.md
    """
    Y, like = check_residuals("matrix_square_root_backward", residuals, MatrixSquareRootResiduals)
    check_cotangent("matrix_square_root_backward", dY, Y.shape, like.dtype)
    (dYw,) = wide(dY)
    return (sylvester_by_sign(Y.mT, Y.mT, dYw).astype(like.dtype),)


matrix_square_root = Rule(matrix_square_root_forward, matrix_square_root_backward)


class MatrixLogarithmResiduals(NamedTuple):
    """X, the argument: the backward pass is the logarithm of a matrix of twice the size."""

    X: Square


def matrix_logarithm_forward(X: Square) -> tuple[Square, MatrixLogarithmResiduals]:
    """Y with eʸ = X, the principal one, whose eigenvalues have imaginary parts between −π and π.

    It exists where X has no eigenvalue on the negative real axis, nor 0; else Y is NaN.

    Derivation: docs/derivations/linear_algebra/root_and_logarithm.md (Al-Mohy, Higham and Relton 2013)
    """
    check_square("matrix_logarithm_forward", "X", X)
    return logarithm(*wide(X)).astype(X.dtype), MatrixLogarithmResiduals(X)


def matrix_logarithm_backward(residuals: MatrixLogarithmResiduals, dY: Square) -> tuple[Square]:
    """Pull dY back through Y = log X.

        dX = the upper right block of log [[Xᵀ, dY], [0, Xᵀ]]

    Derivation: docs/derivations/linear_algebra/root_and_logarithm.md
    """
    (X,) = check_residuals("matrix_logarithm_backward", residuals, MatrixLogarithmResiduals)
    check_cotangent("matrix_logarithm_backward", dY, X.shape, X.dtype)
    Xw, dYw = wide(X, dY)
    # The block is linear in dY, and of degree −1 in X: both enter it scaled to 1.
    e, size = (to_matrices(size_exponent(M)) for M in (Xw, dYw))
    n, Z, E = X.shape[-1], times_power(Xw, -e).mT, times_power(dYw, -size)
    block = logarithm(jnp.block([[Z, E], [jnp.zeros_like(Z), Z]]))[..., :n, n:]
    return (times_power(block, size - e).astype(X.dtype),)


matrix_logarithm = Rule(matrix_logarithm_forward, matrix_logarithm_backward)
