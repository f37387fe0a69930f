"""Inverse and linear systems: each other's special cases, elements that are never read, dtypes."""

import jax
import numpy as np
from helpers import assert_same
from rules.linear_algebra.matrices import RNG, SPD, SYSTEMS, B, X, passes, run, symmetric


def test_an_inverse_is_a_solution():
    """X⁻¹ = solve(X, I), and a positive definite system is a system."""
    dY, ones = RNG.standard_normal((2, 3, 3)), np.broadcast_to(np.eye(3), (2, 3, 3))
    calls = ("inverse", X), ("solve", X, ones), ("positive_definite_solve", SPD, ones), ("solve", SPD, ones)
    (Y, dX), solved, positive, full = run(lambda dY: [passes(op, dY, *of) for op, *of in calls], dY)
    assert_same((Y, dX), solved[:2], 1e-13)
    assert_same(positive, (full[0], symmetric(full[1]), full[2]), 1e-11)


def test_what_a_triangular_solve_does_not_read():
    above = np.triu(np.ones((3, 3), bool), 1)[None]
    for options, unread in (({}, above), ({"unit_diagonal": True}, above | np.eye(3, dtype=bool)[None])):
        noisy, clean = run(
            lambda *As, options=options: [passes("triangular_solve", np.ones_like(B), A, B, **options) for A in As],
            *(np.where(unread, np.nan, X), X),
        )
        assert_same(noisy, clean)
        assert (np.where(unread, noisy[1], 0) == 0).all()


def test_each_argument_has_its_own_dtype():
    for op in SYSTEMS:
        Y, dA, dB = jax.eval_shape(lambda *a, op=op: passes(op, *a), np.ones_like(B), SPD.astype(np.float32), B)
        assert (Y.dtype, dA.dtype, dB.dtype) == (np.float64, np.float32, np.float64)
