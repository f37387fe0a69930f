"""What the rules on matrices share: checks, factorizations, and products at full precision."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact, Int, Shaped

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_cotangent, check_shape, describe

Matrices = Inexact[Array, "*batch m n"]
Square = Inexact[Array, "*batch n n"]
Columns = Inexact[Array, "*batch n k"] | Inexact[Array, "*batch n"]  # right-hand sides, or solutions
Numbers = Inexact[Array, "*batch"]
Like = Inexact[Array, "*batch m 0"]  # see `no_columns`


def check_matrices(where: str, name: str, X: Array, shape: str = "(..., m, n)") -> None:
    """`X` is a matrix, or a batch of them, of floating-point or complex numbers."""
    check_array(where, name, X, allow_complex=True)
    if X.ndim < 2:
        raise InputError(f"{where}: {name} must have shape {shape}, got {describe(X)}")


def check_square(where: str, name: str, X: Array) -> None:
    """`X` is a square matrix, or a batch of them, of floating-point or complex numbers."""
    check_matrices(where, name, X, "(..., n, n)")
    if X.shape[-1] != X.shape[-2]:
        raise InputError(f"{where}: {name} must be square, (..., n, n), got {describe(X)}")


def check_rows(where: str, A: Array, B: Array, rows: str = "n", name: str = "A") -> None:
    """B has a row for each of A's: (..., rows, k), or a vector for each matrix, (..., rows)."""
    check_array(where, "B", B, allow_complex=True)
    why = f"to match {name} {tuple(A.shape)}"
    if B.ndim not in (A.ndim - 1, A.ndim):
        raise InputError(f"{where}: B must have shape (..., {rows}, k) or (..., {rows}) {why}, got {describe(B)}")
    check_shape(where, "B", B, (*A.shape[:-1], *B.shape[A.ndim - 1 :]), why)


def check_system(where: str, A: Array, B: Array) -> None:
    """A Y = B is a system of equations for each matrix of the batch; B's axes decide whether B and Y are vectors."""
    check_square(where, "A", A)
    check_rows(where, A, B)


def check_outputs(
    where: str, cotangents: object, dtype: DTypeLike, /, *, real: tuple[str, ...] = (), **shapes: tuple[int, ...]
) -> tuple[Array, ...]:
    """`cotangents` is a tuple with a cotangent of each of these shapes, for a rule of several outputs; those called
    `real` have real numbers, where the others have complex ones."""
    if not (isinstance(cotangents, tuple) and len(cotangents) == len(shapes)):
        raise InputError(f"{where}: the cotangent must be a tuple ({', '.join(shapes)}), got {describe(cotangents)}")
    for (name, shape), d in zip(shapes.items(), cotangents, strict=True):
        check_cotangent(where, d, shape, real_dtype(dtype) if name in real else dtype, name=name, of=name[1:])
    return cotangents


def real_dtype(dtype: DTypeLike) -> DTypeLike:
    """The dtype of an absolute value."""
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype


def cast(X: Inexact[Array, "*shape"], dtype: DTypeLike) -> Inexact[Array, "*shape"]:
    """X in a dtype. The cotangent of a real argument, beside complex ones, is the real part."""
    return (X if jnp.issubdtype(dtype, jnp.complexfloating) else X.real).astype(dtype)


def product(*matrices: Array) -> Array:
    """A B C …, from left to right, at full precision on every device: no TF32 on GPUs, no bfloat16 on TPUs."""
    first, *others = matrices
    for other in others:
        first = jnp.matmul(first, other, precision=jax.lax.Precision.HIGHEST)
    return first


def as_columns(B: Inexact[Array, "*rows"], ndim: int) -> Inexact[Array, "*columns"]:
    """Right-hand sides as the columns of matrices of `ndim` axes: a vector as its only column."""
    return B if B.ndim == ndim else jnp.expand_dims(B, -1)


def substitute(
    A: Square,
    B: Inexact[Array, "*batch n k"],
    *,
    lower: bool = True,
    unit_diagonal: bool = False,
    transpose: bool = False,
    conjugate: bool = False,
) -> Inexact[Array, "*batch n k"]:
    """A⁻¹ B, A⁻ᵀ B, or with `conjugate` too A⁻ᴴ B, for a triangular A."""
    return jax.lax.linalg.triangular_solve(
        A,
        B,
        left_side=True,
        lower=lower,
        transpose_a=transpose,
        conjugate_a=conjugate and jnp.iscomplexobj(A),
        unit_diagonal=unit_diagonal,
    )


def lu_factor(A: Square) -> tuple[Square, Int[Array, "*batch n"]]:
    """LU and pivots."""
    return meshes.along_batch(jax.scipy.linalg.lu_factor, A)


def cholesky_factor(A: Square) -> Square:
    """L of L Lᴴ = (A + Aᴴ) / 2; NaN where that is not positive definite."""
    return meshes.along_batch(partial(jnp.linalg.cholesky, symmetrize_input=False), symmetric(A))


def lu_solve(
    LU: Square, pivots: Int[Array, "*batch n"], B: Inexact[Array, "*batch n k"], *, transpose: bool = False
) -> Inexact[Array, "*batch n k"]:
    """A⁻¹ B, or A⁻ᵀ B, from the LU factorization of A."""

    def solve(LU: Array, pivots: Array, B: Array) -> Array:
        return jax.scipy.linalg.lu_solve((LU, pivots), B, trans=1 if transpose else 0)

    return meshes.along_batch(solve, LU, pivots, B)


def sign_and_logarithm(LU: Square, pivots: Int[Array, "*batch n"]) -> tuple[Numbers, Float[Array, "*batch"]]:
    """sign det A and log |det A| from the LU factorization of A."""
    diagonal = jnp.diagonal(LU, axis1=-2, axis2=-1)
    exchanged = pivots != as_row(jnp.arange(pivots.shape[-1], dtype=pivots.dtype), pivots.ndim)
    # Each exchange of two rows flips the sign.
    sign = jnp.prod(jnp.where(exchanged, -1, 1) * jnp.sign(diagonal), axis=-1)
    return sign, jnp.sum(jnp.log(jnp.abs(diagonal)), axis=-1)


def turning(dS: Numbers, dY: Float[Array, "*batch"], S: Numbers) -> Numbers:
    """The cotangent of log det X from those of S = sign det X and Y = log |det X|: dY, and i Im (dS S) where S is
    complex and turns."""
    slope = dY.astype(S.dtype)
    return slope + 1j * (dS * S).imag if jnp.iscomplexobj(S) else slope


def thin_svd(
    X: Matrices,
) -> tuple[Inexact[Array, "*batch m k"], Float[Array, "*batch k"], Inexact[Array, "*batch k n"]]:
    """The thin U, S and Vᴴ; NaN for a matrix with an infinite element, on which LAPACK never returns."""
    finite = jnp.all(jnp.isfinite(X), axis=(-2, -1), keepdims=True)
    U, S, Vt = jnp.linalg.svd(jnp.where(finite, X, jnp.nan), full_matrices=False)
    return U, S, Vt


def symmetric(X: Square) -> Square:
    """(X + Xᴴ) / 2."""
    return (X + adjoint(X)) / 2


def adjoint(X: Matrices) -> Inexact[Array, "*batch n m"]:
    """Xᴴ, which is Xᵀ for real numbers."""
    return X.conj().mT


def identity_of(X: Square) -> Square:
    """I, for each matrix of the batch."""
    return jnp.broadcast_to(jnp.eye(X.shape[-1], dtype=X.dtype), X.shape)


def no_columns(X: Matrices) -> Like:
    """X[..., :0]: the residual of a rule whose backward pass needs X's dtype, or its leading axes, but no element."""
    return X[..., :0]


def to_matrices(dY: Shaped[Array, "*batch"]) -> Shaped[Array, "*batch 1 1"]:
    """One number for each matrix, to broadcast with (..., m, n)."""
    return jnp.expand_dims(dY, (-2, -1))


def exponent(X: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """e with 2ᵉ in X/2 … X, for X > 0; 0 for 0, ∞ and NaN: integers, without a gradient."""
    _, e = jnp.frexp(jax.lax.stop_gradient(X))
    return jnp.where((X > 0) & jnp.isfinite(X), e - 1, 0)


def size_exponent(X: Matrices) -> Int[Array, "*batch"]:
    """The exponent of each matrix's largest element."""
    return exponent(jnp.max(jnp.abs(X), axis=(-2, -1), initial=0))


def times_power(X: Inexact[Array, "*#shape"], e: Int[Array, "*#shape"]) -> Inexact[Array, "*#shape"]:
    """X 2ᵉ, exactly: in two steps, as 2ᵉ alone may overflow, and from bits, as no exponential is exact."""
    info, half = jnp.finfo(X.dtype), e // 2
    bits = jnp.int32 if info.bits == 32 else jnp.int64
    for part in (half, e - half):
        biased = (jnp.clip(part, info.minexp, info.maxexp - 1) + (info.maxexp - 1)).astype(bits)
        X = X * jax.lax.bitcast_convert_type(biased << info.nmant, info.dtype)
    return X


def rounding_of(S: Float[Array, "*batch k"], n: int | None = None) -> Float[Array, "*batch 1"]:
    """8 n eps of the largest value: LAPACK returns equal values of a matrix of size n about 2 n eps apart, and a
    difference below 8 n eps has hardly a correct digit."""
    n = S.shape[-1] if n is None else n
    return 8 * n * jnp.finfo(S.dtype).eps * jnp.max(jnp.abs(S), axis=-1, keepdims=True, initial=0)
