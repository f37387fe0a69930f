"""Matrices, and a rule's two passes as part of one program, for the tests of this family."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad import rules

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 3)) + 3 * np.eye(3)
B = RNG.standard_normal((2, 3, 2))
C = RNG.standard_normal((3, 3))
SPD = X @ X.swapaxes(-1, -2)

SYSTEMS = ("solve", "triangular_solve", "positive_definite_solve")
SQUARE = (
    "inverse",
    "trace",
    "determinant",
    "log_determinant",
    "cholesky",
    "symmetric_eigen",
    "matrix_exponential",
    "matrix_square_root",
    "matrix_logarithm",
)
ANY = ("frobenius_norm", "nuclear_norm", "qr", "svd", "pseudo_inverse")


def orthogonal(n):
    return np.linalg.qr(RNG.standard_normal((n, n)))[0]


def symmetric(M):
    return (M + M.swapaxes(-1, -2)) / 2


def passes(op, dY, *arguments, **options):
    """(Y, *cotangents) of one rule."""
    Y, residuals = getattr(rules, op).forward(*arguments, **options)
    return Y, *getattr(rules, op).backward(residuals, dY, **options)


def run(function, *arguments):
    """function(*arguments) as one program, its results in NumPy."""
    return jax.device_get(jax.jit(function)(*arguments))


def check_composition(op, product, M, expected):
    """product(*factors) is M (1, n, n), and C pulled back through it and through the rule is `expected`."""

    def both(M):
        Y, residuals = getattr(rules, op).forward(M)
        value, pullback = jax.vjp(lambda Y: product(*(y[0] for y in jax.tree.leaves(Y))), Y)
        return value, getattr(rules, op).backward(residuals, *pullback(jnp.asarray(C)))[0]

    value, dX = run(both, M)
    np.testing.assert_allclose(value, M[0], atol=1e-13)
    np.testing.assert_allclose(dX[0], expected, atol=1e-12)
