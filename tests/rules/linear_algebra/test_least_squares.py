"""Least squares and the pseudo-inverse: each other's special cases, any rank, SciPy's answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import assert_same
from rules.linear_algebra.matrices import RNG, B, X, passes, run
from rules.refusals import refuses

from handgrad import rules

TALL, WIDE = RNG.standard_normal((5, 3)), RNG.standard_normal((2, 4))


def test_a_square_least_squares_is_a_solution():
    dY = RNG.standard_normal(B.shape)
    found, expected, inverse, pseudo = run(
        lambda dY: (
            passes("least_squares", dY, X, B),
            passes("solve", dY, X, B),
            passes("inverse", X, X),
            passes("pseudo_inverse", X, X),
        ),
        dY,
    )
    assert_same(found, expected, 1e-12)
    assert_same(pseudo, inverse, 1e-12)


def test_against_scipy_and_each_other():
    """A⁺ B, of tall and wide matrices, is SciPy's, and dB is A⁺ᵀ dY."""
    for A in (TALL, WIDE):
        b, dy = RNG.standard_normal(len(A)), RNG.standard_normal(A.shape[1])
        y, _, db = run(lambda A, b, dy: passes("least_squares", dy, A, b), A, b, dy)
        np.testing.assert_allclose(y, scipy.linalg.lstsq(A, b)[0], rtol=1e-12)
        np.testing.assert_allclose(db, scipy.linalg.pinv(A).T @ dy, rtol=1e-12)


def test_a_pseudo_inverse_of_low_rank():
    """X = M N of rank 2: the gradient by M and by N, as of (M N)⁺ = N⁺ M⁺ in plain jax.numpy."""
    M, N, dY = RNG.standard_normal((5, 2)), RNG.standard_normal((2, 4)), RNG.standard_normal((4, 5))

    def plain(M, N):
        of_N, of_M = N.T @ jnp.linalg.inv(N @ N.T), jnp.linalg.inv(M.T @ M) @ M.T
        return of_N @ of_M

    def both(M, N):
        Y, dX = passes("pseudo_inverse", dY, M @ N)
        value, pullback = jax.vjp(plain, M, N)
        return (Y, dX @ N.T, M.T @ dX), (value, *pullback(dY))

    assert_same(*run(both, M, N), 1e-12)


def test_what_counts_as_zero():
    """rtol decides; zeros have a pseudo-inverse of zeros, and a gradient of zeros."""
    M = np.stack([np.diag([1.0, 1e-4]), np.zeros((2, 2))])
    kept, dropped = run(lambda M: [passes("pseudo_inverse", np.ones(M.shape), M, rtol=r) for r in (None, 1e-3)], M)
    np.testing.assert_allclose(kept[0][0], np.diag([1.0, 1e4]), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(dropped[0][0], np.diag([1.0, 0]), rtol=1e-13, atol=1e-12)
    for Y, dX in (kept, dropped):
        assert not Y[1].any()
        assert not dX[1].any()


def test_the_square_of_an_inverse_may_overflow():
    """dX = −dY / x² fits in float32 where 1 / x² doesn't."""
    x, dY = np.full((1, 1, 1), 1e-25, np.float32), np.full((1, 1, 1), 1e-20, np.float32)
    _, dX = run(lambda x: passes("pseudo_inverse", dY, x), x)
    np.testing.assert_allclose(dX, -1e30, rtol=1e-6)


@pytest.mark.parametrize("rtol", [-1.0, 1.0, "all", True])
def test_a_wrong_tolerance(rtol):
    refuses(rules.pseudo_inverse, f"rtol must be None or a number from 0 to 1, got {rtol!r}", TALL, rtol=rtol)


def test_a_right_hand_side_of_other_rows():
    sentence = "B must have shape (5, 2) to match A (5, 3), got float64 (3, 2)"
    refuses(rules.least_squares, sentence, TALL, np.ones((3, 2)))
    refuses(rules.least_squares, "B must have shape (..., m, k) or (..., m) to match A…", TALL, np.ones((1, 5, 2)))
