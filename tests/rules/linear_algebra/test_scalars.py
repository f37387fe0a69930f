"""Determinants of singular matrices and of any size, and their logarithms."""

import itertools

import jax
import numpy as np
from rules.linear_algebra.matrices import RNG, orthogonal, passes, run

from handgrad import rules


def minors(M):
    """The cofactor matrix, each element from its own determinant."""
    without = lambda i, j: np.delete(np.delete(M, i, 0), j, 1)  # noqa: E731
    n = range(len(M))
    return np.array([[(-1) ** (i + j) * np.linalg.det(without(i, j)) for j in n] for i in n])


def test_the_oracle_of_cofactors():
    """Leibniz' sum over permutations has the gradient that these tests compare with."""
    M = RNG.standard_normal((3, 3))

    def leibniz(M):
        orders = [[*p] for p in itertools.permutations(range(3))]
        return sum(np.linalg.det(np.eye(3)[p]) * M[0, p[0]] * M[1, p[1]] * M[2, p[2]] for p in orders)

    np.testing.assert_allclose(run(jax.grad(leibniz), M), minors(M), rtol=1e-12)


def test_a_determinants_gradient_at_any_rank():
    """And at rank 3 where an LU has no first pivot: one cofactor is −1, and jax.grad gives 0."""
    values = np.tril(np.tile([3.0, -2.0, 1.5, 0.5], (5, 1)), -1)  # none, one, …, four of them
    of_rank = [orthogonal(4) @ np.diag(some) @ orthogonal(4) for some in values]
    no_pivot, cofactors = np.diag(np.ones(3), 1), np.zeros((4, 4))
    cofactors[3, 0] = -1
    np.testing.assert_allclose(minors(no_pivot), cofactors, atol=1e-15)
    _, dX = run(lambda M: passes("determinant", np.full(6, 2.0), M), np.stack([*of_rank, no_pivot]))
    for rank, M in enumerate(of_rank):
        np.testing.assert_allclose(dX[rank], 2 * minors(M), atol=1e-13)
        assert (np.abs(minors(M)).max() > 0.1) == (rank >= 3)
    np.testing.assert_allclose(dX[5], 2 * cofactors, atol=2e-15)


def test_determinant_of_rows_of_any_size():
    """Products of some of the pivots overflow, the determinant and some cofactors do not."""
    sizes = 10.0 ** np.array([25, 25, -25, -24, 0])
    normal = lambda n: np.random.default_rng(0).standard_normal((2, n, n))  # noqa: E731
    Xs = [(size[:, None] * normal(len(size))).astype(np.float32) for size in (sizes[[0, 1, 3]], sizes)]
    found = run(lambda Xs: [passes("determinant", np.ones(2, np.float32), X) for X in Xs], Xs)
    for X, (Y, dX) in zip(Xs, found, strict=True):
        exact = X.astype(np.float64)
        det = np.linalg.det(exact)
        np.testing.assert_allclose(Y, det, rtol=1e-5)
        cofactors = det[:, None, None] * np.swapaxes(np.linalg.inv(exact), -1, -2)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(dX, cofactors.astype(np.float32), rtol=1e-4)


def test_a_log_determinant_neither_overflows_nor_hides_a_singular_matrix():
    large, singular, ones = 1e6 * np.eye(60)[None], np.array([[[1.0, 2.0], [2.0, 4.0]]]), (np.ones(1), np.ones(1))
    both = run(lambda *Xs: [passes("log_determinant", ones, X) for X in Xs], large, singular)
    determinant, (((S, Y), dX), ((S0, Y0), dX0)) = run(rules.determinant, large), both
    assert np.isinf(determinant)
    assert S == 1
    np.testing.assert_allclose(Y[0], 60 * np.log(1e6), rtol=1e-14)
    np.testing.assert_allclose(dX[0], np.eye(60) / 1e6, rtol=1e-14)
    assert (0, -np.inf) == (S0, Y0)
    assert not np.isfinite(dX0).any()
