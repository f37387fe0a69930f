"""Numbers that a square matrix has: trace, determinant, and the determinant's logarithm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import as_row, check_cotangent, check_residuals
from handgrad.rules.linear_algebra._matrices import (
    check_outputs,
    check_square,
    exponent,
    lu_factor,
    lu_solve,
    no_columns,
    product,
    svd,
    times_power,
    to_matrices,
    working,
)
from handgrad.rules.rule import Rule

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

Array = jax.Array


class TraceResiduals(NamedTuple):
    """like: (batch, ..., n, 0) no number: X's axes and dtype are all that dX needs."""

    like: Array


def trace_forward(X: Array) -> tuple[Array, TraceResiduals]:
    """Y = Σ x_ii.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      Y (batch, ...); residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("trace_forward", "X", X)
    Y = jnp.trace(*working(X), axis1=-2, axis2=-1).astype(X.dtype)
    return Y, TraceResiduals(no_columns(X))


def trace_backward(residuals: TraceResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = tr X.

        dX = dY I

    Args:
      residuals: TraceResiduals of trace_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    (like,) = check_residuals("trace_backward", residuals, TraceResiduals)
    check_cotangent("trace_backward", dY, like.shape[:-2], like.dtype)
    return (to_matrices(dY) * _identity(like.shape, like.dtype),)


trace = Rule(trace_forward, trace_backward)


class DeterminantResiduals(NamedTuple):
    """X: (batch, ..., n, n) the argument, a reference: LU doesn't give the cofactors of a singular matrix."""

    X: Array


def determinant_forward(X: Array) -> tuple[Array, DeterminantResiduals]:
    """Y = det X. Up to n = 35, rows and columns are scaled by powers of two: nothing overflows on the way to Y.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      Y (batch, ...); residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("determinant_forward", "X", X)
    Z, _, total = _evened_out(*working(X))
    return times_power(meshes.along_batch(jnp.linalg.det, Z), total).astype(X.dtype), DeterminantResiduals(X)


def determinant_backward(residuals: DeterminantResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = det X.

        dX = dY cof X      X = U S Vᵀ;  cof X = det(U Vᵀ) U diag(∏_{j≠i} s_j) Vᵀ

    The matrix of cofactors is det X · X⁻ᵀ where X is regular, and a polynomial in X's elements everywhere: it is right
    at a singular X of any rank. (JAX's own gradient of det is 0 at some matrices of rank n − 1 where it shouldn't be.)

    Args:
      residuals: DeterminantResiduals of determinant_forward.
      dY: like Y, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    (X,) = check_residuals("determinant_backward", residuals, DeterminantResiduals)
    check_cotangent("determinant_backward", dY, X.shape[:-2], X.dtype)
    Xw, dYw = working(X, dY)
    Z, e, total = _evened_out(Xw)
    U, S, Vt = svd(Z)
    orientation = meshes.along_batch(jnp.linalg.det, product(U, Vt))  # 1 or −1
    cofactors = product(U * jnp.expand_dims(_products_of_the_others(S), -2), Vt)
    return (times_power(to_matrices(dYw * orientation) * cofactors, to_matrices(total) - e).astype(X.dtype),)


determinant = Rule(determinant_forward, determinant_backward)


class LogDeterminantResiduals(NamedTuple):
    """X's factorization.

    Attributes:
      LU: (batch, ..., n, n) both triangles of X's LU factorization, for X⁻ᵀ.
      pivots: (batch, ..., n) integers, the row that each row was exchanged with.
      like: (batch, ..., n, 0) no number, X's dtype.
    """

    LU: Array
    pivots: Array
    like: Array


def log_determinant_forward(X: Array) -> tuple[tuple[Array, Array], LogDeterminantResiduals]:
    """S = sign det X and Y = log |det X|, so that det X = S eʸ without overflow.

    A singular X has S = 0 and Y = −∞, where the logarithm has no slope.

    Args:
      X: (batch, ..., n, n) floating point.
    Returns:
      (S, Y), each (batch, ...); residuals.
    Raises:
      InputError: X is not floating point, or not square.
    Derivation: docs/derivations/linear_algebra/scalars.md (Giles 2008)
    """
    check_square("log_determinant_forward", "X", X)
    LU, pivots = lu_factor(*working(X))
    diagonal = jnp.diagonal(LU, axis1=-2, axis2=-1)
    exchanged = pivots != as_row(jnp.arange(pivots.shape[-1], dtype=pivots.dtype), pivots.ndim)
    # Each exchange of two rows turns the sign round once.
    S = jnp.prod(jnp.where(exchanged, -1, 1) * jnp.sign(diagonal), axis=-1)
    Y = jnp.sum(jnp.log(jnp.abs(diagonal)), axis=-1)
    return (S.astype(X.dtype), Y.astype(X.dtype)), LogDeterminantResiduals(LU, pivots, no_columns(X))


def log_determinant_backward(residuals: LogDeterminantResiduals, dY: tuple[Array, Array]) -> tuple[Array]:
    """Pull dS and dY back through S = sign det X, Y = log |det X|.

        dX = dY X⁻ᵀ      dS meets a constant and is left aside

    Args:
      residuals: LogDeterminantResiduals of log_determinant_forward.
      dY: (dS, dY), cotangents of S and Y.
    Returns:
      dX like X; infinite or NaN where X is singular.
    Raises:
      InputError: residuals of another rule; dS or dY not of S's or Y's shape and dtype.
    Derivation: docs/derivations/linear_algebra/scalars.md
    """
    where = "log_determinant_backward"
    LU, pivots, like = check_residuals(where, residuals, LogDeterminantResiduals)
    dS, dy = check_outputs(where, dY, "dS", "dY")
    check_cotangent(where, dS, like.shape[:-2], like.dtype, name="dS", of="S")
    check_cotangent(where, dy, like.shape[:-2], like.dtype)
    transposed_inverse = lu_solve(LU, pivots, _identity(like.shape, LU.dtype), transpose=True)
    return ((to_matrices(dy).astype(LU.dtype) * transposed_inverse).astype(like.dtype),)


log_determinant = Rule(log_determinant_forward, log_determinant_backward)


def _identity(shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """I (batch, ..., n, n), for the axes (batch, ..., n, ·)."""
    n = shape[-2]
    return jnp.broadcast_to(jnp.eye(n, dtype=dtype), (*shape[:-1], n))


def _evened_out(X: Array) -> tuple[Array, Array, Array]:
    """Z, e and t with x_ij = z_ij 2^e_ij and det X = 2ᵗ det Z; e_ij is a number of row i plus one of column j, so that
    the cofactors of X are those of Z times 2^(t − e_ij).

    The elements of Z are below 2, and |det Z| below (2 √n)ⁿ. From n = 36 on that may be too large a number where det X
    is none: Z is X then.
    """
    rows = exponent(jnp.max(jnp.abs(X), axis=-1, keepdims=True, initial=0))
    columns = exponent(jnp.max(jnp.abs(times_power(X, -rows)), axis=-2, keepdims=True, initial=0))
    e = rows + columns if X.shape[-1] < 36 else 0 * (rows + columns)
    return times_power(X, -e), e, jnp.trace(e, axis1=-2, axis2=-1)


def _products_of_the_others(S: Array) -> Array:
    """∏_{j≠i} s_j for each i, without a division: what stands before i times what stands behind it."""
    one = jnp.ones_like(S[..., :1])
    before = jnp.cumprod(jnp.concatenate([one, S[..., :-1]], axis=-1), axis=-1)
    behind = jnp.cumprod(jnp.concatenate([one, S[..., :0:-1]], axis=-1), axis=-1)
    return before * jnp.flip(behind, axis=-1)
