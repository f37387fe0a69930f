"""Scalars of a square matrix: trace, determinant, and the determinant's logarithm."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Like,
    Numbers,
    Square,
    check_outputs,
    check_square,
    exponent,
    identity_of,
    lu_factor,
    lu_solve,
    no_columns,
    product,
    real_dtype,
    sign_and_logarithm,
    thin_svd,
    times_power,
    to_matrices,
    turning,
)

__all__ = [
    "DeterminantResiduals",
    "LogDeterminantResiduals",
    "TraceResiduals",
    "determinant",
    "determinant_backward",
    "determinant_forward",
    "log_determinant",
    "log_determinant_backward",
    "log_determinant_forward",
    "trace",
    "trace_backward",
    "trace_forward",
]


class TraceResiduals(NamedTuple):
    """like: X's leading axes, size and dtype are all that dX needs."""

    like: Like


def trace_forward(X: Square) -> tuple[Numbers, TraceResiduals]:
    """Y = Σ x_ii.

    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("trace_forward", "X", X)
    Y = jnp.trace(wide(X)[0], axis1=-2, axis2=-1).astype(X.dtype)
    return Y, TraceResiduals(no_columns(X))


def trace_backward(residuals: TraceResiduals, dY: Numbers) -> tuple[Square]:
    """Pull dY back through Y = tr X.

        dX = dY I

    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    (like,) = check_residuals("trace_backward", residuals, TraceResiduals)
    check_cotangent("trace_backward", dY, like.shape[:-2], like.dtype)
    return (to_matrices(dY) * _identity(like),)


trace = Rule(trace_forward, trace_backward)


class DeterminantResiduals(NamedTuple):
    """X, the argument: an LU factorization does not give the cofactors of a singular matrix."""

    X: Square


def determinant_forward(X: Square) -> tuple[Numbers, DeterminantResiduals]:
    """Y = det X. Up to n = 35, rows and columns are scaled by powers of two, so that no partial product overflows.

    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("determinant_forward", "X", X)
    Z, _, total = _equilibrated(*wide(X))
    return times_power(meshes.along_batch(jnp.linalg.det, Z), total).astype(X.dtype), DeterminantResiduals(X)


def determinant_backward(residuals: DeterminantResiduals, dY: Numbers) -> tuple[Square]:
    """Pull dY back through Y = det X.

        dX = dY cof X      X = U S Vᵀ;  cof X = det(U Vᵀ) U diag(∏_{j≠i} s_j) Vᵀ

    The cofactor matrix is det X · X⁻ᵀ where X is regular, and a polynomial in X's elements everywhere. The formula by
    SVD holds at a singular X of any rank. (JAX's own gradient of det is 0 at some matrices of rank n − 1.)

    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    (X,) = check_residuals("determinant_backward", residuals, DeterminantResiduals)
    check_cotangent("determinant_backward", dY, X.shape[:-2], X.dtype)
    Xw, dYw = wide(X, dY)
    Z, e, total = _equilibrated(Xw)
    U, S, Vt = thin_svd(Z)
    orientation = meshes.along_batch(jnp.linalg.det, product(U, Vt))  # 1 or −1, or of absolute value 1
    cofactors = product(U * jnp.expand_dims(_products_of_the_others(S), -2), Vt).conj()
    return (times_power(to_matrices(dYw * orientation) * cofactors, to_matrices(total) - e).astype(X.dtype),)


determinant = Rule(determinant_forward, determinant_backward)


class LogDeterminantResiduals(NamedTuple):
    """X's factorization.

    Attributes:
      S: the sign, an output; the derivative of a complex one takes it.
      LU: both triangles of X's LU factorization, for X⁻ᵀ.
      pivots: the row that each row was exchanged with.
      like: X's dtype.
    """

    S: Numbers
    LU: Square
    pivots: Int[Array, "*batch n"]
    like: Like


def log_determinant_forward(X: Square) -> tuple[tuple[Numbers, Numbers], LogDeterminantResiduals]:
    """S = sign det X and Y = log |det X|, so that det X = S eʸ without overflow.

    A singular X has S = 0 and Y = −∞, where the logarithm is not differentiable.

    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("log_determinant_forward", "X", X)
    LU, pivots = lu_factor(*wide(X))
    S, Y = sign_and_logarithm(LU, pivots)
    residuals = LogDeterminantResiduals(S, LU, pivots, no_columns(X))
    return (S.astype(X.dtype), Y.astype(real_dtype(X.dtype))), residuals


def log_determinant_backward(residuals: LogDeterminantResiduals, dY: tuple[Numbers, Numbers]) -> tuple[Square]:
    """Pull dY = (dS, dY) back through S = sign det X, Y = log |det X|.

        dX = dY X⁻ᵀ      infinite or NaN where X is singular

    S is piecewise constant where X is real, so dS is ignored. A complex S turns: dY gains i Im (dS S).

    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    where = "log_determinant_backward"
    S, LU, pivots, like = check_residuals(where, residuals, LogDeterminantResiduals)
    dS, dy = check_outputs(where, dY, like.dtype, real=("dY",), dS=S.shape, dY=S.shape)
    transposed_inverse = lu_solve(LU, pivots, identity_of(LU), transpose=True)
    return ((to_matrices(turning(dS, dy, S)) * transposed_inverse).astype(like.dtype),)


log_determinant = Rule(log_determinant_forward, log_determinant_backward)


def _identity(like: Like) -> Square:
    """I, for each matrix of the batch, in its dtype."""
    n = like.shape[-2]
    return jnp.broadcast_to(jnp.eye(n, dtype=like.dtype), (*like.shape[:-1], n))


def _equilibrated(X: Square) -> tuple[Square, Int[Array, "*batch n n"], Int[Array, "*batch"]]:
    """Z, e and t with x_ij = z_ij 2^e_ij and det X = 2ᵗ det Z; e_ij is a number of row i plus one of column j, so that
    the cofactors of X are those of Z times 2^(t − e_ij).

    The elements of Z are below 2, and |det Z| below (2 √n)ⁿ. From n = 36 on that may overflow where det X does not:
    Z is X then.
    """
    rows = exponent(jnp.max(jnp.abs(X), axis=-1, keepdims=True, initial=0))
    columns = exponent(jnp.max(jnp.abs(times_power(X, -rows)), axis=-2, keepdims=True, initial=0))
    e = rows + columns if X.shape[-1] < 36 else 0 * (rows + columns)
    return times_power(X, -e), e, jnp.trace(e, axis1=-2, axis2=-1)


def _products_of_the_others(S: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """∏_{j≠i} s_j for each i, without a division: the product before i times the product after it."""
    one = jnp.ones_like(S[..., :1])
    before = jnp.cumprod(jnp.concatenate([one, S[..., :-1]], axis=-1), axis=-1)
    after = jnp.cumprod(jnp.concatenate([one, S[..., :0:-1]], axis=-1), axis=-1)
    return before * jnp.flip(after, axis=-1)
