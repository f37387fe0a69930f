"""The square root and the logarithm of a matrix: SciPy's answers, defective matrices, what has none."""

import jax
import numpy as np
import scipy.linalg
from rules.linear_algebra.matrices import passes, run

from handgrad import rules

RNG = np.random.default_rng(0)


def test_against_scipy():
    """Of condition numbers 20, 10³ and 10⁶: as near as the condition allows, and Y Y as near to X as by SciPy."""
    W = RNG.standard_normal((6, 6)) + 2 * np.eye(6)
    X = np.stack([W @ np.diag(np.geomspace(1, size, 6)) @ np.linalg.inv(W) for size in (2, 1e2, 1e5)])
    Y, L = run(lambda X: (rules.matrix_square_root.forward(X)[0], rules.matrix_logarithm.forward(X)[0]), X)
    for x, y, log in zip(X, Y, L, strict=True):
        eps = 2.0**-52 * np.linalg.cond(x)
        roots, logs = scipy.linalg.sqrtm(x), scipy.linalg.logm(x)
        np.testing.assert_allclose(y, roots, rtol=0, atol=20 * eps * np.abs(roots).max())
        np.testing.assert_allclose(log, logs, rtol=0, atol=20 * eps * np.abs(logs).max())
        np.testing.assert_allclose(scipy.linalg.expm(log), x, rtol=0, atol=20 * eps * np.abs(x).max())


def test_functions_known_in_closed_form():
    """Of a Jordan block, which has no basis of eigenvectors; of a rotation by 3, close to the negative axis; of numbers
    near 1; and of matrices of any size."""
    rotation = lambda a: np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])  # noqa: E731
    jordan, small = np.array([[4.0, 1], [0, 4]]), 1e-9
    M = np.stack([jordan, rotation(3), np.eye(2) * (1 - small), 1e200 * jordan, 1e-200 * jordan])
    roots, logs = run(lambda M: [passes(f"matrix_{op}", M, M) for op in ("square_root", "logarithm")], M)
    of_jordan = np.array([[2, 1 / 4], [0, 2]]), np.array([[np.log(4), 1 / 4], [0, np.log(4)]])
    np.testing.assert_allclose(roots[0][0], of_jordan[0], atol=1e-14)
    np.testing.assert_allclose(logs[0][0], of_jordan[1], atol=1e-14)
    np.testing.assert_allclose(roots[0][1], rotation(1.5), atol=1e-13)
    np.testing.assert_allclose(logs[0][1], [[0, -3], [3, 0]], atol=1e-12)
    np.testing.assert_allclose(logs[0][2], np.log1p(-small) * np.eye(2), rtol=1e-7, atol=1e-30)
    for i, size in ((3, 1e200), (4, 1e-200)):
        np.testing.assert_allclose(roots[0][i] / np.sqrt(size), of_jordan[0], atol=1e-14)
        np.testing.assert_allclose(logs[0][i] - np.log(size) * np.eye(2), of_jordan[1], atol=1e-12)
    # Along X itself, the root's derivative is Y / 2 and the logarithm's I: ⟨dX, X⟩ is ⟨dY, Y⟩ / 2 and tr dY.
    np.testing.assert_allclose(
        np.sum(roots[1][:3] * M[:3], (1, 2)), np.sum(M[:3] * roots[0][:3], (1, 2)) / 2, rtol=1e-12
    )
    np.testing.assert_allclose(np.sum(logs[1] * M, (1, 2)), np.trace(M, axis1=1, axis2=2), rtol=1e-12)


def test_what_has_none():
    """An eigenvalue that is negative, or 0: NaN for that matrix, and numbers for the next."""
    M = np.stack([np.diag([1.0, -1.0]), np.diag([1.0, 0.0]), np.eye(2)])
    for Y in run(lambda M: [rules.matrix_square_root.forward(M)[0], rules.matrix_logarithm.forward(M)[0]], M):
        assert np.isnan(Y[:2]).all((1, 2)).all()
        assert np.isfinite(Y[2]).all()


def test_a_logarithm_undoes_an_exponential():
    """log eˣ = X, so that the two backward passes undo each other."""
    X, dY = RNG.standard_normal((2, 3, 3)) / 2

    def round_trip(X, dY):
        E, of_exponential = rules.matrix_exponential.forward(X)
        L, of_logarithm = rules.matrix_logarithm.forward(E)
        (dE,) = rules.matrix_logarithm.backward(of_logarithm, dY)
        return L, rules.matrix_exponential.backward(of_exponential, dE)[0]

    L, dX = jax.device_get(jax.jit(round_trip)(X, dY))
    np.testing.assert_allclose(L, X, atol=1e-13)
    np.testing.assert_allclose(dX, dY, atol=1e-13)
