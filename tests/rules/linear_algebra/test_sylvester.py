"""Sylvester's and Lyapunov's equations: both methods, against SciPy, and where there is no solution."""

import numpy as np
import pytest
import scipy.linalg
from helpers import assert_same
from rules.linear_algebra.matrices import passes, run
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)

A = RNG.standard_normal((4, 4)) / 2 - 2 * np.eye(4)
B = RNG.standard_normal((3, 3)) / 2 - np.eye(3)
C, Q = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 4))


def test_both_methods_against_scipy():
    """Stable matrices, and their negatives: the same solution and cotangents by both methods."""

    def both(A, B, C, Q):
        equations = ("sylvester", C, (A, B, C)), ("sylvester", C, (-A, -B, C)), ("lyapunov", Q, (A, Q))
        found = [[passes(op, dY, *of, method=method) for op, dY, of in equations] for method in ("kronecker", "sign")]
        return found, passes("discrete_lyapunov", Q, A / 4, Q)

    (kronecker, sign), discrete = run(both, A, B, C, Q)
    assert_same(sign, kronecker, 1e-12)
    np.testing.assert_allclose(kronecker[0][0], scipy.linalg.solve_sylvester(A, B, C), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(kronecker[2][0], scipy.linalg.solve_continuous_lyapunov(A, Q), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(discrete[0], scipy.linalg.solve_discrete_lyapunov(A / 4, Q), rtol=1e-11, atol=1e-13)


def test_eigenvalues_on_both_sides():
    """The sign function doesn't solve the equation there, and says so; the system does. Sizes don't matter."""
    M = np.stack([np.diag([1.0, -2.0]), 1e30 * np.eye(2), 1e-30 * np.eye(2)]).astype(np.float32)
    N = np.stack([np.eye(2), 1e30 * np.eye(2), 1e-30 * np.eye(2)]).astype(np.float32) * 3
    ones = np.ones((3, 2, 2), np.float32)
    sign, kronecker = run(
        lambda *a: [rules.sylvester.forward(*a, method=method)[0] for method in ("sign", "kronecker")], M, N, ones
    )
    assert np.isnan(sign[0]).all()
    np.testing.assert_allclose(kronecker[0], [[1 / 4, 1 / 4], [1, 1]], rtol=1e-5)
    for i, size in ((1, 1e30), (2, 1e-30)):
        np.testing.assert_allclose(sign[i] * size, ones[0] / 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "sentence", "arguments", "options"),
    [
        ("sylvester", "C must have shape (4, 3) to match A (4, 4) and B (3, 3), got float64 (3, 4)", (A, B, C.T), {}),
        ("sylvester", "B must have shape (3, 3) to match A (4, 4), got float64 (1, 3, 3)", (A, B[None], C), {}),
        ("sylvester", "method must be 'kronecker' or 'sign', got 'schur'", (A, B, C), {"method": "schur"}),
        ("lyapunov", "Q must have shape (4, 4) to match A (4, 4), got float64 (4, 3)", (A, C), {}),
        ("discrete_lyapunov", "A must be square, (..., n, n), got float64 (4, 3)", (C, Q), {}),
    ],
)
def test_refusals(rule, sentence, arguments, options):
    refuses(getattr(rules, rule), sentence, *arguments, **options)
