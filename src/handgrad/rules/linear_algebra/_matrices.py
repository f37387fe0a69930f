"""What the rules on matrices share: checks, factorizations, and products at full precision."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_shape, describe

Matrices = Float[Array, "batch *rest m n"]
Square = Float[Array, "batch *rest n n"]
Columns = Float[Array, "batch *rest n k"]  # right-hand sides, or solutions
Numbers = Float[Array, " batch *rest"]
Like = Float[Array, "batch *rest m 0"]  # see `no_columns`


def check_matrices(where: str, name: str, X: Array, shape: str = "(batch, ..., m, n)") -> None:
    """`X` is a batch of matrices, of floating point."""
    check_array(where, name, X)
    if X.ndim < 3:
        raise InputError(f"{where}: {name} must have shape {shape}, got {describe(X)}")


def check_square(where: str, name: str, X: Array) -> None:
    """`X` is a batch of square matrices, of floating point."""
    check_matrices(where, name, X, "(batch, ..., n, n)")
    if X.shape[-1] != X.shape[-2]:
        raise InputError(f"{where}: {name} must be square, (batch, ..., n, n), got {describe(X)}")


def check_system(where: str, A: Array, B: Array) -> None:
    """A Y = B is a system of equations for each matrix of the batch."""
    check_square(where, "A", A)
    check_matrices(where, "B", B, "(batch, ..., n, k)")
    check_shape(where, "B", B, (*A.shape[:-1], B.shape[-1]), f"to match A {tuple(A.shape)}")


def check_outputs(where: str, cotangents: object, dtype: DTypeLike, /, **shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """`cotangents` is a tuple with a cotangent of each of these shapes, for a rule of several outputs."""
    if not (isinstance(cotangents, tuple) and len(cotangents) == len(shapes)):
        raise InputError(f"{where}: the cotangent must be a tuple ({', '.join(shapes)}), got {describe(cotangents)}")
    for (name, shape), d in zip(shapes.items(), cotangents, strict=True):
        check_cotangent(where, d, shape, dtype, name=name, of=name[1:])
    return cotangents


def product(*matrices: Array) -> Array:
    """A B C …, from left to right, at full precision on every device: no TF32 on GPUs, no bfloat16 on TPUs."""
    first, *others = matrices
    for other in others:
        first = jnp.matmul(first, other, precision=jax.lax.Precision.HIGHEST)
    return first


def substitute(
    A: Square, B: Columns, *, lower: bool = True, unit_diagonal: bool = False, transpose: bool = False
) -> Columns:
    """A⁻¹ B, or A⁻ᵀ B, for a triangular A."""
    return jax.lax.linalg.triangular_solve(
        A, B, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=unit_diagonal
    )


def lu_factor(A: Square) -> tuple[Square, Int[Array, "batch *rest n"]]:
    """LU and pivots."""
    return meshes.along_batch(jax.scipy.linalg.lu_factor, A)


def cholesky_factor(A: Square) -> Square:
    """L of L Lᵀ = (A + Aᵀ) / 2; NaN where that is not positive definite."""
    return meshes.along_batch(partial(jnp.linalg.cholesky, symmetrize_input=False), symmetric(A))


def lu_solve(LU: Square, pivots: Int[Array, "batch *rest n"], B: Columns, *, transpose: bool = False) -> Columns:
    """A⁻¹ B, or A⁻ᵀ B, from the LU factorization of A."""

    def solve(LU: Array, pivots: Array, B: Array) -> Array:
        return jax.scipy.linalg.lu_solve((LU, pivots), B, trans=1 if transpose else 0)

    return meshes.along_batch(solve, LU, pivots, B)


def thin_svd(
    X: Matrices,
) -> tuple[Float[Array, "batch *rest m k"], Float[Array, "batch *rest k"], Float[Array, "batch *rest k n"]]:
    """The thin U, S and Vᵀ; NaN for a matrix with an infinite element, on which LAPACK never returns."""
    finite = jnp.all(jnp.isfinite(X), axis=(-2, -1), keepdims=True)
    U, S, Vt = jnp.linalg.svd(jnp.where(finite, X, jnp.nan), full_matrices=False)
    return U, S, Vt


def symmetric(X: Square) -> Square:
    """(X + Xᵀ) / 2."""
    return (X + X.mT) / 2


def no_columns(X: Matrices) -> Like:
    """X[..., :0]: the residual of a rule whose backward pass needs X's dtype, or its leading axes, but no element."""
    return X[..., :0]


def to_matrices(dY: Shaped[Array, " batch *rest"]) -> Shaped[Array, "batch *rest 1 1"]:
    """One number for each matrix, to broadcast with (batch, ..., m, n)."""
    return jnp.expand_dims(dY, (-2, -1))


def exponent(X: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """e with 2ᵉ in X/2 … X, for X > 0; 0 for 0, ∞ and NaN: integers, without a gradient."""
    _, e = jnp.frexp(jax.lax.stop_gradient(X))
    return jnp.where((X > 0) & jnp.isfinite(X), e - 1, 0)


def times_power(X: Float[Array, "*#shape"], e: Int[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """X 2ᵉ, exactly: in two steps, as 2ᵉ alone may overflow, and from bits, as no exponential is exact."""
    info, half = jnp.finfo(X.dtype), e // 2
    bits = jnp.int32 if info.bits == 32 else jnp.int64
    for part in (half, e - half):
        biased = (jnp.clip(part, info.minexp, info.maxexp - 1) + (info.maxexp - 1)).astype(bits)
        X = X * jax.lax.bitcast_convert_type(biased << info.nmant, X.dtype)
    return X
