"""The Dice loss: nothing in either set, digits of an all but perfect answer, refusals."""

import numpy as np
from rules.losses.rows import assert_edges, outcomes
from rules.refusals import refuses

from handgrad import rules


def test_nothing_everything_and_all_but_perfect():
    """Two empty sets agree; no overlap costs 1 − s / (sizes + s); an answer that is off by 1e-7 keeps its digits in
    float32."""
    empty, full = np.zeros((1, 4)), np.ones((1, 4))
    near = (full - np.float32(2.0**-23)).astype(np.float32)
    rows = [(empty, empty), (full, empty), (near, full.astype(np.float32))]
    agree, apart, (C, *_) = outcomes([("dice_loss", *row) for row in rows])
    assert agree[0] == 0
    np.testing.assert_allclose(apart[0], [1 - 1 / 5], rtol=1e-15)
    np.testing.assert_allclose(C, [4 * 2.0**-23 / 9], rtol=1e-6)


def test_classes_are_summed():
    """per_class is the sum of each class's loss alone."""
    A, Y = np.random.default_rng(0).uniform(size=(2, 3, 5, 2))
    whole, *classes = outcomes(
        [("dice_loss", A, Y, {"per_class": True}), *(("dice_loss", A[..., k], Y[..., k]) for k in range(2))]
    )
    np.testing.assert_allclose(whole[0], sum(C for C, *_ in classes), rtol=1e-14)
    np.testing.assert_allclose(whole[1], np.stack([dA for _, dA, _ in classes], -1), rtol=1e-13)


def test_edges():
    assert_edges(weightless=[("dice_loss", [[np.nan]], [[1.0]])])


def test_bad_input():
    A = np.zeros((4, 5))
    refuses(rules.dice_loss, "smooth must be a positive number, got 0", A, A, smooth=0)
    refuses(rules.dice_loss, "the probabilities A must have shape (batch, …), got float64 (4,)", A[:, 0], A[:, 0])
    between = "the probabilities A must have shape (batch, ..., classes), with an axis between, got float64 (4, 5)"
    refuses(rules.dice_loss, between, A, A, per_class=True)
