"""Rows of the rules on matrices: rules/matrix_solve.py, matrix_scalars.py, matrix_norms.py, matrix_exponential.py,
decompositions.py and spectra.py.

Most matrices are normal numbers plus n I, of condition number 2 to 8: float64 then has room for 1e-12. A row called
"ill" has the condition number that stands beside it. LAPACK has no bfloat16: like the rules,
the references compute in float32 and round.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case, fixed, normal
from handgrad import layers


def in_float32(function):
    """A function of JAX's in a dtype that LAPACK has, its outputs in the promoted dtype of its arguments."""

    @functools.wraps(function)
    def rounded(*arrays, **options):
        dtype = jnp.result_type(*arrays)
        wide = [a.astype(jnp.promote_types(dtype, jnp.float32)) for a in arrays]
        outputs = function(*wide, **options)
        return jax.tree.map(lambda y: y.astype(dtype), tuple(outputs) if isinstance(outputs, tuple) else outputs)

    return rounded


def regular(*shape, columns=None):
    """Normal numbers + n I, and a right-hand side where it has columns."""

    def draw(rng):
        A = rng.standard_normal(shape) + shape[-1] * np.eye(shape[-1])
        return (A,) if columns is None else (A, rng.standard_normal((*shape[:-1], columns)))

    return draw


def spectrum(*values, columns=None):
    """V diag(values) Uᵀ for random orthogonal U and V, a batch of two: condition number max / min."""

    def draw(rng):
        n = len(values)
        U, V = (np.linalg.qr(rng.standard_normal((2, n, n)))[0] for _ in range(2))
        A = V @ (np.array(values)[:, None] * np.swapaxes(U, -1, -2))
        return (A,) if columns is None else (A, rng.standard_normal((2, n, columns)))

    return draw


def positive(*values, columns=None):
    """V diag(values) Vᵀ plus a skew part, which nobody reads: condition number max / min."""

    def draw(rng):
        n = len(values)
        V, _ = np.linalg.qr(rng.standard_normal((2, n, n)))
        skew = rng.standard_normal((2, n, n))
        A = V @ (np.array(values)[:, None] * np.swapaxes(V, -1, -2)) + skew - np.swapaxes(skew, -1, -2)
        return (A,) if columns is None else (A, rng.standard_normal((2, n, columns)))

    return draw


def triangular_solve(A, B, lower=True, unit_diagonal=False):
    """By the full solver: zeros outside the triangle, ones on the diagonal, written out."""
    n = A.shape[-1]
    T = jnp.where(jnp.tril(jnp.ones((n, n), bool))[None], A, 0) if lower else jnp.triu(A)
    return jnp.linalg.solve(T * (1 - jnp.eye(n)[None]) + jnp.eye(n)[None] if unit_diagonal else T, B)


def symmetrized(A):
    return (A + jnp.swapaxes(A, -1, -2)) / 2


solve = in_float32(jnp.linalg.solve)
triangular = in_float32(triangular_solve)
positive_definite = in_float32(lambda A, B: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(symmetrized(A)), B))
inverse = in_float32(jnp.linalg.inv)
trace = in_float32(lambda X: jnp.einsum("...ii->...", X))
determinant = in_float32(jnp.linalg.det)
log_determinant = in_float32(jnp.linalg.slogdet)
frobenius_norm = in_float32(lambda X: jnp.sqrt(jnp.sum(X * X, axis=(-2, -1))))
nuclear_norm = in_float32(functools.partial(jnp.linalg.norm, ord="nuc", axis=(-2, -1)))
cholesky = in_float32(jnp.linalg.cholesky)
qr = in_float32(jnp.linalg.qr)
symmetric_eigen = in_float32(jnp.linalg.eigh)
svd = in_float32(functools.partial(jnp.linalg.svd, full_matrices=False))
matrix_exponential = in_float32(jax.scipy.linalg.expm)

FLOAT32 = (jnp.float32,)  # rounded to bfloat16, a matrix of condition number 1e4 is positive definite no longer
SINGULAR = [[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]], [[1.0, 2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 1.0, 1.0]]]

CASES = [
    Case("inverse", "matrices", regular(2, 3, 3), inverse),
    Case("inverse", "tokens", regular(2, 2, 4, 4), inverse),
    Case("inverse", "ill", spectrum(1.0, 1e-1, 1e-3), inverse, rtol=1e-11),  # condition 1e3, and dX has its square
    Case("solve", "matrices", regular(2, 3, 3, columns=2), solve),
    Case("solve", "tokens", regular(2, 2, 4, 4, columns=1), solve),
    Case("solve", "ill", spectrum(1.0, 1e-2, 1e-4, columns=2), solve, rtol=1e-10),  # condition 1e4
    Case("triangular_solve", "lower", regular(2, 3, 3, columns=2), triangular),
    Case("triangular_solve", "upper", regular(2, 2, 4, 4, columns=1), triangular, {"lower": False}),
    Case("triangular_solve", "unit", normal((2, 3, 3), (2, 3, 2)), triangular, {"unit_diagonal": True}),
    Case("positive_definite_solve", "matrices", positive(1.0, 2.0, 5.0, columns=2), positive_definite),
    Case(
        "positive_definite_solve",
        "ill",
        positive(1e-4, 1e-2, 1.0, columns=1),
        positive_definite,
        rtol=1e-10,  # condition 1e4
        reduced=FLOAT32,
    ),
    Case("trace", "matrices", normal((2, 3, 3)), trace),
    Case("trace", "tokens", normal((2, 1, 4, 4)), trace),
    Case("determinant", "matrices", normal((3, 4, 4)), determinant),
    Case("determinant", "tokens", normal((2, 2, 2, 2)), determinant),
    # JAX writes determinants up to 3 by 3 out and rounds each cofactor twice; an SVD rounds n eps of the largest.
    Case("determinant", "singular", fixed(SINGULAR), determinant, roundings=24),
    Case("log_determinant", "matrices", regular(3, 4, 4), log_determinant),
    Case("log_determinant", "negative", spectrum(1.0, 0.5, 2.0, -1.5), log_determinant),
    Case("log_determinant", "single", normal((2, 2, 1, 1)), log_determinant),
    Case("frobenius_norm", "matrices", normal((3, 2, 4)), frobenius_norm),
    Case("frobenius_norm", "tokens", normal((2, 2, 3, 1)), frobenius_norm),
    Case("nuclear_norm", "wide", normal((3, 2, 4)), nuclear_norm),
    Case("nuclear_norm", "tall", normal((2, 2, 3, 2)), nuclear_norm),
    Case("cholesky", "matrices", positive(1.0, 2.0, 5.0), cholesky),
    Case("cholesky", "single", lambda rng: (rng.uniform(1, 2, (2, 2, 1, 1)),), cholesky),
    Case("cholesky", "ill", positive(1e-4, 1e-2, 1.0), cholesky, rtol=1e-10, reduced=FLOAT32),  # condition 1e4
    Case("qr", "tall", normal((2, 4, 3)), qr),
    Case("qr", "square", regular(2, 2, 3, 3), qr),
    Case("qr", "wide", normal((2, 2, 4)), qr),
    Case("symmetric_eigen", "matrices", positive(-1.0, 0.5, 2.0, 4.0), symmetric_eigen),
    Case("symmetric_eigen", "single", normal((2, 2, 1, 1)), symmetric_eigen),
    Case("symmetric_eigen", "ill", positive(1.0, 1.001, 2.0), symmetric_eigen, rtol=1e-11),  # a gap of 1e-3
    Case("svd", "square", spectrum(3.0, 2.0, 1.0), svd),
    Case("svd", "tall", normal((2, 4, 2)), svd),
    Case("svd", "wide", normal((2, 2, 4)), svd),
    Case("matrix_exponential", "matrices", normal((2, 3, 3)), matrix_exponential),
    Case("matrix_exponential", "squared", normal((2, 2, 2), scale=4.0), matrix_exponential),
]


LAYERS = {
    op: getattr(layers, op)
    for op in (
        "cholesky",
        "determinant",
        "frobenius_norm",
        "inverse",
        "log_determinant",
        "matrix_exponential",
        "nuclear_norm",
        "positive_definite_solve",
        "qr",
        "solve",
        "svd",
        "symmetric_eigen",
        "trace",
        "triangular_solve",
    )
}
