"""Exponentials in closed form, and large cotangents."""

import numpy as np
from helpers import assert_same
from rules.linear_algebra.matrices import RNG, X, passes, run


def test_a_large_cotangent():
    """It is scaled to 1 inside the block matrix: no squarings for it, no digits lost, no NaN; and 0 stays 0."""
    sizes = np.array([1.0, 2.0**40, 2.0**-40, 0.0])
    dY = sizes[:, None, None, None] * RNG.standard_normal((2, 3, 3))
    _, dX = run(lambda X, dY: passes("matrix_exponential", dY, X), np.broadcast_to(X, dY.shape), dY)
    for size, scaled in zip(sizes, dX, strict=True):
        assert_same(scaled, size * dX[0], 1e-14)


def test_a_zero_cotangent_where_the_exponential_overflows():
    """0, as by autodiff, and no NaN for the other matrices of the batch to sum up."""
    huge = np.stack([1e6 * np.eye(3), np.eye(3)])
    _, dX = run(lambda X, dY: passes("matrix_exponential", dY, X), huge, np.stack([np.zeros((3, 3)), np.eye(3)]))
    np.testing.assert_array_equal(dX[0], 0)
    assert np.isfinite(dX[1]).all()


def test_exponentials_known_in_closed_form():
    """Of 0; of a diagonal matrix; of [[0, −a], [a, 0]], which rotates by a, and its derivative by a quarter more."""
    dY, s, a, rotation, plane = RNG.standard_normal((3, 3)), np.array([0.5, -1.0, 2.0]), 0.7, *np.zeros((2, 3, 3))
    rotation[:2, :2], plane[:2, :2] = [[0, -a], [a, 0]], np.eye(2)
    M = np.stack([np.zeros((3, 3)), np.diag(s), rotation])
    Y, dX = run(lambda M, dY: passes("matrix_exponential", dY, M), M, np.stack([dY, dY, plane]))
    assert_same((Y[0], dX[0]), (np.eye(3), dY), 1e-15)
    slopes = np.array([[np.exp(a) if a == b else (np.exp(a) - np.exp(b)) / (a - b) for a in s] for b in s])
    assert_same((Y[1], dX[1]), (np.diag(np.exp(s)), dY * slopes), 1e-13)
    np.testing.assert_allclose(Y[2, :2, :2], [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], atol=1e-15)
    np.testing.assert_allclose(dX[2, 1, 0] - dX[2, 0, 1], -2 * np.sin(a), atol=1e-15)
