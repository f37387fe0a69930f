"""The matrix exponential; its backward pass is the exponential of a matrix of twice the size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import Square, check_square

__all__ = [
    "MatrixExponentialResiduals",
    "matrix_exponential",
    "matrix_exponential_backward",
    "matrix_exponential_forward",
]


class MatrixExponentialResiduals(NamedTuple):
    """X, the argument: the output alone does not determine the derivative."""

    X: Square


def matrix_exponential_forward(X: Square) -> tuple[Square, MatrixExponentialResiduals]:
    """Y = I + X + X² / 2! + X³ / 3! + …, by scaling and squaring.

    More than 16 squarings, for a norm beyond about 10⁵, give NaN, as in jax.scipy.linalg.expm.

    Derivation: docs/derivations/linear_algebra/exponential.md (Al-Mohy and Higham 2009)
    """
    check_square("matrix_exponential_forward", "X", X)
    Y = meshes.along_batch(jax.scipy.linalg.expm, *wide(X)).astype(X.dtype)
    return Y, MatrixExponentialResiduals(X)


def matrix_exponential_backward(residuals: MatrixExponentialResiduals, dY: Square) -> tuple[Square]:
    """Pull dY back through Y = eˣ.

        dX = the upper right block of exp [[Xᵀ, dY], [0, Xᵀ]]

    Derivation: docs/derivations/linear_algebra/exponential.md
    """
    (X,) = check_residuals("matrix_exponential_backward", residuals, MatrixExponentialResiduals)
    check_cotangent("matrix_exponential_backward", dY, X.shape, X.dtype)
    Xw, dYw = wide(X, dY)
    # The block is linear in dY, which enters it scaled to 1: a large one would only cost squarings and digits.
    size = jnp.max(jnp.abs(dYw), axis=(-2, -1), keepdims=True, initial=0)
    E = dYw / jnp.where(size == 0, 1, size)
    n = X.shape[-1]
    block = jnp.block([[Xw.mT, E], [jnp.zeros_like(Xw), Xw.mT]])
    dX = size * meshes.along_batch(jax.scipy.linalg.expm, block)[..., :n, n:]
    return (jnp.where(size == 0, 0, dX).astype(X.dtype),)  # zero, also where eˣ overflows


matrix_exponential = Rule(matrix_exponential_forward, matrix_exponential_backward)
