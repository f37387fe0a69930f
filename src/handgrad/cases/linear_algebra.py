"""Linear algebra beside jnp.linalg. LAPACK has no bfloat16: references compute in float32 and round, as the rules do.

Most matrices are normal numbers plus n I, of condition number 2 to 8: float64 then has room for 1e-12. A row called
"ill" has the condition number that stands beside it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases import _matrices
from handgrad.cases._matrices import SINE, in_float32
from handgrad.cases._quadratic_programs import program, quadratic_program
from handgrad.cases.case import Arrays, Case, Draw, Rng, edge, fixed, normal


def triangular_solve(A: Array, B: Array, lower: bool = True, unit_diagonal: bool = False) -> Array:
    """By the full solver: zeros outside the triangle, ones on the diagonal, written out."""
    n = A.shape[-1]
    T = jnp.where(jnp.tril(jnp.ones((n, n), bool))[None], A, 0) if lower else jnp.triu(A)
    return jnp.linalg.solve(T * (1 - jnp.eye(n)[None]) + jnp.eye(n)[None] if unit_diagonal else T, B)


def jax_triangular_solve(A: Array, B: Array, lower: bool = True, unit_diagonal: bool = False) -> Array:
    """jax.scipy's."""
    return jax.scipy.linalg.solve_triangular(A, B, lower=lower, unit_diagonal=unit_diagonal)


def positive_definite_solve(A: Array, B: Array) -> Array:
    """From the symmetric part, by jax.scipy."""
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor((A + jnp.swapaxes(A, -1, -2)) / 2), B)


def beside(rng: Rng, A: Any, columns: int | None) -> Arrays:
    """A, and a right-hand side where it has columns."""
    return (A,) if columns is None else (A, rng.standard_normal((*A.shape[:-1], columns)))


def regular(*shape: int, diagonal: float | None = None, columns: int | None = None) -> Draw:
    """Normal numbers + n I, or another multiple of I."""
    size = shape[-1] if diagonal is None else diagonal
    return lambda rng: beside(rng, rng.standard_normal(shape) + size * np.eye(shape[-1]), columns)


def spectrum(*values: float, columns: int | None = None) -> Draw:
    """V diag(values) Uᵀ for random orthogonal U and V, a batch of two: condition number max / min."""

    def draw(rng: Rng) -> Arrays:
        n = len(values)
        U, V = (np.linalg.qr(rng.standard_normal((2, n, n)))[0] for _ in range(2))
        return beside(rng, V @ (np.array(values)[:, None] * np.swapaxes(U, -1, -2)), columns)

    return draw


def positive(*values: float, columns: int | None = None) -> Draw:
    """V diag(values) Vᵀ plus a skew part, which nobody reads: condition number max / min."""

    def draw(rng: Rng) -> Arrays:
        n = len(values)
        V, _ = np.linalg.qr(rng.standard_normal((2, n, n)))
        skew = rng.standard_normal((2, n, n))
        A = V @ (np.array(values)[:, None] * np.swapaxes(V, -1, -2)) + skew - np.swapaxes(skew, -1, -2)
        return beside(rng, A, columns)

    return draw


def apart(*shape: int, columns: int | None = None) -> Draw:
    """Singular values near 1, 3, 5, …: no two of them close."""
    m, n = shape[-2:]
    return lambda rng: beside(rng, 0.2 * rng.standard_normal(shape) + np.eye(m, n) * (1 + 2 * np.arange(n)), columns)


def equation(m: int, n: int) -> Draw:
    """A and B with eigenvalues of positive real parts, and C, a batch of two."""

    def draw(rng: Rng) -> Arrays:
        A, B = (rng.standard_normal((2, k, k)) + 3 * np.eye(k) for k in (m, n))
        return A, B, rng.standard_normal((2, m, n))

    return draw


def thin(batch: int, n: int, r: int, columns: int | None = None) -> Draw:
    """A diagonal of both signs and two thin matrices."""

    def draw(rng: Rng) -> Arrays:
        d = rng.uniform(2, 3, (batch, n)) * rng.choice([-1, 1], (batch, n))
        U, V = beside(rng, 0.5 * rng.standard_normal((batch, n, r)), r)
        return d, U, V, *beside(rng, U, columns)[1:]

    return draw


solve = in_float32(jnp.linalg.solve)
triangular = in_float32(triangular_solve)
jax_triangular = in_float32(jax_triangular_solve)
definite = in_float32(positive_definite_solve)
inverse = in_float32(jnp.linalg.inv)
trace = in_float32(lambda X: jnp.einsum("...ii->...", X))
determinant = in_float32(jnp.linalg.det)
log_determinant = in_float32(jnp.linalg.slogdet)
frobenius_norm = in_float32(lambda X: jnp.sqrt(jnp.sum(X * X, axis=(-2, -1))))
nuclear_norm = in_float32(partial(jnp.linalg.norm, ord="nuc", axis=(-2, -1)))
cholesky = in_float32(jnp.linalg.cholesky)
qr = in_float32(jnp.linalg.qr)
eigen = in_float32(jnp.linalg.eigh)
svd = in_float32(partial(jnp.linalg.svd, full_matrices=False))
exponential = in_float32(jax.scipy.linalg.expm)
symmetric_function = in_float32(_matrices.symmetric_function)
square_root, logarithm = in_float32(_matrices.square_root), in_float32(_matrices.logarithm)
sylvester, lyapunov = in_float32(_matrices.sylvester), in_float32(_matrices.lyapunov)
discrete_lyapunov = in_float32(_matrices.discrete_lyapunov)
low_rank_solve = in_float32(lambda d, U, V, B: jnp.linalg.solve(_matrices.low_rank(d, U, V), B))
low_rank_log_determinant = in_float32(lambda *a: jnp.linalg.slogdet(_matrices.low_rank(*a)))
least_squares, pseudo_inverse = in_float32(_matrices.least_squares), in_float32(_matrices.pseudo_inverse)

FLOAT32 = (jnp.float32,)  # rounded to bfloat16, a matrix of condition number 1e4 is positive definite no longer
SINGULAR = [[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]], [[1.0, 2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 1.0, 1.0]]]
UNIT = {"lower": False, "unit_diagonal": True}
ILL = positive(1e-4, 1e-2, 1.0)

CASES = [
    Case(rules.inverse, "matrices", regular(2, 3, 3), inverse),
    edge(rules.inverse, "tokens", regular(2, 2, 4, 4), inverse),
    edge(rules.inverse, "ill", spectrum(1.0, 1e-1, 1e-3), inverse, rtol=1e-11),  # condition 1e3, and dX has its square
    Case(rules.solve, "matrices", regular(2, 3, 3, columns=2), solve),
    edge(rules.solve, "tokens", regular(2, 2, 4, 4, columns=1), solve),
    edge(rules.solve, "ill", spectrum(1.0, 1e-2, 1e-4, columns=2), solve, rtol=1e-10),  # condition 1e4
    Case(rules.triangular_solve, "matrices", regular(2, 3, 3, columns=2), triangular, peer=jax_triangular),
    Case(rules.triangular_solve, "unit", normal((2, 3, 3), (2, 3, 1)), triangular, UNIT, jax_triangular),
    edge(rules.triangular_solve, "tokens", regular(2, 2, 4, 4, columns=1), triangular, {"lower": False}),
    Case(rules.positive_definite_solve, "matrices", positive(1.0, 2.0, 5.0, columns=2), definite),
    edge(
        rules.positive_definite_solve,
        "ill",
        positive(1e-4, 1e-2, 1.0, columns=1),
        definite,
        rtol=1e-10,  # condition 1e4
        reduced=FLOAT32,
    ),
    Case(rules.trace, "matrices", normal((2, 3, 3)), trace),
    edge(rules.trace, "tokens", normal((2, 1, 4, 4)), trace),
    Case(rules.determinant, "matrices", regular(3, 4, 4, diagonal=2), determinant),
    edge(rules.determinant, "tokens", normal((2, 2, 2, 2)), determinant),
    # JAX writes determinants up to 3 by 3 out and rounds each cofactor twice; an SVD rounds n eps of the largest.
    edge(rules.determinant, "singular", fixed(SINGULAR), determinant, roundings=24),
    Case(rules.log_determinant, "matrices", regular(3, 4, 4), log_determinant),
    edge(rules.log_determinant, "negative", spectrum(1.0, 0.5, 2.0, -1.5), log_determinant),
    edge(rules.log_determinant, "single", normal((2, 2, 1, 1)), log_determinant),
    Case(rules.frobenius_norm, "matrices", normal((3, 2, 4)), frobenius_norm),
    edge(rules.frobenius_norm, "tokens", normal((2, 2, 3, 1)), frobenius_norm),
    Case(rules.nuclear_norm, "wide", apart(3, 2, 4), nuclear_norm),
    edge(rules.nuclear_norm, "tall", normal((2, 2, 3, 2)), nuclear_norm),
    Case(rules.cholesky, "matrices", positive(1.0, 2.0, 5.0), cholesky),
    edge(rules.cholesky, "single", lambda rng: (rng.uniform(1, 2, (2, 2, 1, 1)),), cholesky),
    edge(rules.cholesky, "ill", ILL, cholesky, rtol=1e-10, reduced=FLOAT32),  # condition 1e4
    Case(rules.qr, "tall", normal((2, 4, 3)), qr),
    edge(rules.qr, "square", regular(2, 2, 3, 3), qr),
    Case(rules.qr, "wide", normal((2, 2, 4)), qr),
    Case(rules.symmetric_eigen, "matrices", positive(-1.0, 0.5, 2.0, 4.0), eigen),
    edge(rules.symmetric_eigen, "single", normal((2, 2, 1, 1)), eigen),
    edge(rules.symmetric_eigen, "ill", positive(1.0, 1.001, 2.0), eigen, rtol=1e-11),  # a gap of 1e-3
    Case(rules.svd, "tall", apart(2, 4, 2), svd),
    edge(rules.svd, "square", spectrum(3.0, 2.0, 1.0), svd),
    Case(rules.svd, "wide", apart(2, 2, 4), svd),
    Case(rules.matrix_exponential, "matrices", normal((2, 3, 3), scale=1 / 3), exponential),
    edge(rules.matrix_exponential, "squared", normal((2, 2, 2), scale=4.0), exponential),
    Case(rules.symmetric_function, "matrices", positive(1.0, 2.0, 5.0), symmetric_function, {"f": "sqrt"}),
    edge(rules.symmetric_function, "equal", positive(1.0, 1.0, 2.5), symmetric_function, {"f": "sqrt"}),
    edge(rules.symmetric_function, "matrices", positive(0.5, 1.0, 3.0), symmetric_function, {"f": "log"}),
    edge(rules.symmetric_function, "equal", positive(0.5, 2.0, 2.0), symmetric_function, {"f": "log"}),
    edge(rules.symmetric_function, "matrices", positive(-1.0, 0.5, 2.0), symmetric_function, {"f": "exp"}),
    edge(rules.symmetric_function, "near", positive(1.0, 1 + 1e-9, 2.0), symmetric_function, {"f": "exp"}),
    edge(rules.symmetric_function, "matrices", positive(1.0, 2.0, 4.0), symmetric_function, {"f": -0.5}),
    edge(rules.symmetric_function, "matrices", positive(-1.0, 0.5, 2.0), symmetric_function, {"f": SINE}),
    edge(rules.symmetric_function, "near", positive(-1.0, 0.5, 0.5 + 1e-5), symmetric_function, {"f": SINE}),
    Case(rules.matrix_square_root, "matrices", regular(2, 3, 3, diagonal=4), square_root),
    edge(rules.matrix_square_root, "tokens", regular(2, 2, 2, 2, diagonal=3), square_root),
    Case(rules.matrix_logarithm, "matrices", regular(2, 3, 3, diagonal=4), logarithm),
    Case(rules.sylvester, "matrices", equation(3, 2), sylvester),
    edge(rules.sylvester, "matrices", equation(2, 3), sylvester, {"method": "sign"}),
    Case(rules.lyapunov, "matrices", regular(2, 3, 3, columns=3), lyapunov),
    Case(rules.discrete_lyapunov, "matrices", normal((2, 3, 3), (2, 3, 3), scale=0.3), discrete_lyapunov),
    Case(rules.low_rank_solve, "matrices", thin(2, 4, 2, columns=3), low_rank_solve),
    Case(rules.low_rank_log_determinant, "matrices", thin(2, 4, 2), low_rank_log_determinant),
    Case(rules.least_squares, "tall", normal((2, 5, 3), (2, 5, 2)), least_squares),
    edge(rules.least_squares, "wide", apart(2, 2, 4, columns=1), least_squares),
    Case(rules.pseudo_inverse, "tall", apart(2, 4, 3), pseudo_inverse),
    edge(rules.pseudo_inverse, "wide", apart(2, 2, 4), pseudo_inverse, {"rtol": 1e-3}),
    Case(rules.quadratic_program, "programs", program(3), quadratic_program),
    edge(rules.quadratic_program, "equalities", program(2, 2, equalities=2, active=0, inactive=0), quadratic_program),
    edge(
        rules.quadratic_program, "inequalities", program(2, n=3, equalities=0, active=2, inactive=1), quadratic_program
    ),
]
