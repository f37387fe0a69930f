"""PPO's value loss: which error counts, ties, what doesn't count, refusals."""

import functools

import numpy as np
from rules.losses.rows import outcomes
from rules.refusals import refuses

from handgrad import rules

V = np.array([[0.0, 0.5, 0.5, 0.5, -0.5]])  # from 0: within, beyond and past r, beyond and short of r, halfway, away
RETURNS = np.array([[1.0, 0.0, 1.0, 0.375, 1.0]])
OLD, SUM = np.zeros_like(V), {"clip": 0.25, "reduction": "sum"}


def test_which_error_counts():
    """Beyond the clip and nearer to its return than the clipped value, a value is held; halfway it isn't; where nothing
    counts, nothing is read."""
    hidden = np.full((1, 5), np.nan)
    rows = [("ppo_value_loss", V, OLD, RETURNS, SUM), ("ppo_value_loss", hidden, OLD, RETURNS, hidden > 0, SUM)]
    (C, dV, dV_old, dR, _), padding = outcomes(rows)
    np.testing.assert_allclose(C, [(1 + 0.25 + 0.75**2 + 0.125**2 + 1.5**2) / 2], rtol=1e-15)
    np.testing.assert_array_equal(dV, [[-1, 0.5, 0, 0.125, -1.5]])
    np.testing.assert_array_equal(dV_old, [[0, 0, -0.75, 0, 0]])
    np.testing.assert_array_equal(dR, [[1, -0.5, 0.75, -0.125, 1.5]])
    assert not any(np.any(a) for a in padding[:-1])


def test_bad_input():
    refuse = functools.partial(refuses, rules.ppo_value_loss)
    refuse("V_old must have shape (1, 5) like V, got float64 (1, 4)", V, OLD[:, :4], RETURNS)
    refuse("the returns R must have shape (1, 5) (the first axes of V), got float64 (1, 4)", V, OLD, RETURNS[:, :4])
    refuse("mask must be of booleans, got int64 (1, 5)", V, OLD, RETURNS, np.ones((1, 5), int))
    refuse("clip must be a positive number, got 0", V, OLD, RETURNS, clip=0)
