"""What the rules on matrices share: checks, the dtype to compute in, and a product that no device rounds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_shape, describe
from handgrad.factors.base import accumulator

Array = jax.Array


def check_matrices(where: str, name: str, X: Any, shape: str = "(batch, ..., m, n)") -> None:
    """`X` is a batch of matrices, of floating point."""
    check_array(where, name, X)
    if X.ndim < 3:
        raise InputError(f"{where}: {name} must have shape {shape}, got {describe(X)}")


def check_square(where: str, name: str, X: Any) -> None:
    """`X` is a batch of square matrices, of floating point."""
    check_matrices(where, name, X, "(batch, ..., n, n)")
    if X.shape[-1] != X.shape[-2]:
        raise InputError(f"{where}: {name} must be square, (batch, ..., n, n), got {describe(X)}")


def check_system(where: str, A: Any, B: Any) -> None:
    """A Y = B is a system of equations for each matrix of the batch."""
    check_square(where, "A", A)
    check_matrices(where, "B", B, "(batch, ..., n, k)")
    check_shape(where, "B", B, (*A.shape[:-1], B.shape[-1]), f"to meet A {tuple(A.shape)}")


def check_outputs(where: str, dY: Any, *names: str) -> tuple[Any, ...]:
    """`dY` has a cotangent for each of these outputs."""
    if not (isinstance(dY, tuple) and len(dY) == len(names)):
        raise InputError(f"{where}: the cotangent must be a tuple ({', '.join(names)}), got {describe(dY)}")
    return dY


def working(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in one dtype, float32 at least: no solver or decomposition knows a smaller one."""
    dtype = accumulator(*arrays)
    return tuple(jnp.asarray(a, dtype) for a in arrays)


def product(*matrices: Array) -> Array:
    """A B C …, from left to right, with every digit of their dtype on every device."""
    first, *others = matrices
    for other in others:
        first = jnp.matmul(first, other, precision=jax.lax.Precision.HIGHEST)
    return first


def substitute(
    A: Array, B: Array, *, lower: bool = True, unit_diagonal: bool = False, transpose: bool = False
) -> Array:
    """A⁻¹ B, or A⁻ᵀ B, for a triangle A."""
    return jax.lax.linalg.triangular_solve(
        A, B, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=unit_diagonal
    )


def inverted(A: Array) -> Array:
    """A⁻¹, by LU."""
    return meshes.along_batch(jnp.linalg.inv, A)


def lu_factor(A: Array) -> tuple[Array, Array]:
    """LU and pivots."""
    return meshes.along_batch(jax.scipy.linalg.lu_factor, A)


def cholesky_factor(A: Array) -> Array:
    """L of L Lᵀ = (A + Aᵀ) / 2; NaN where that is not positive definite."""
    return meshes.along_batch(partial(jnp.linalg.cholesky, symmetrize_input=False), symmetric(A))


def lu_solve(LU: Array, pivots: Array, B: Array, *, transpose: bool = False) -> Array:
    """A⁻¹ B, or A⁻ᵀ B, from the factors of A."""

    def solve(LU: Array, pivots: Array, B: Array) -> Array:
        return jax.scipy.linalg.lu_solve((LU, pivots), B, trans=1 if transpose else 0)

    return meshes.along_batch(solve, LU, pivots, B)


def svd(X: Array) -> tuple[Array, Array, Array]:
    """The thin U, S and Vᵀ; of NaN for a matrix with an infinite element, from which LAPACK never returns."""
    finite = jnp.all(jnp.isfinite(X), axis=(-2, -1), keepdims=True)
    U, S, Vt = jnp.linalg.svd(jnp.where(finite, X, jnp.nan), full_matrices=False)
    return U, S, Vt


def symmetric(X: Array) -> Array:
    """(X + Xᵀ) / 2."""
    return (X + X.mT) / 2


def no_columns(X: Array) -> Array:
    """X[..., :0]: not a number, but X's other axes and its dtype, so that a backward pass can answer in kind."""
    return X[..., :0]


def to_matrices(dY: Array) -> Array:
    """dY (batch, ...), one number for each matrix, against (batch, ..., m, n)."""
    return jnp.expand_dims(dY, (-2, -1))


def exponent(X: Array) -> Array:
    """e with 2ᵉ in X/2 … X, for X > 0; 0 for 0, ∞ and NaN: integers, without a gradient."""
    _, e = jnp.frexp(jax.lax.stop_gradient(X))
    return jnp.where((X > 0) & jnp.isfinite(X), e - 1, 0)


def times_power(X: Array, e: Array) -> Array:
    """X 2ᵉ, exactly: in two steps, as 2ᵉ alone may not fit, and from bits, as no exponential is exact."""
    info, half = jnp.finfo(X.dtype), e // 2
    bits = jnp.int32 if info.bits == 32 else jnp.int64
    for part in (half, e - half):
        biased = (jnp.clip(part, info.minexp, info.maxexp - 1) + (info.maxexp - 1)).astype(bits)
        X = X * jax.lax.bitcast_convert_type(biased << info.nmant, X.dtype)
    return X
