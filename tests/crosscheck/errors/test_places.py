"""Where a gradient is wrong, in words that are true of its elements."""

import re

import numpy as np
import pytest
from crosscheck.errors.specimens import by_hand, specimen

from handgrad.crosscheck.errors import diagnose


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (lambda X: X == 0, "right but for elements where x == 0: 3 × too large there"),
        (lambda X: X <= 0, "right but for elements where x <= 0: 3 × too large there"),
        (lambda X: X > 1, "right but for elements where x > 1: 3 × too large there"),
        (lambda X: np.triu(np.ones(X.shape), 1) > 0, "right on and below the diagonal only: 3 × too large elsewhere"),
        (lambda X: np.eye(8) > 0, "right but for the diagonal: 3 × too large there"),
        (lambda X: X.max(-1, keepdims=True) == X, "right but for the largest of each row: 3 × too large there"),
        (lambda X: np.isin(np.indices(X.shape)[1], (2, 3, 4)), "right but for columns 2 to 4: 3 × too large there"),
        (lambda X: np.indices(X.shape)[0] != 5, "right for row 5 only: 3 × too large elsewhere"),
        (lambda X: np.indices(X.shape).max(0) < 3, "right but for [0:3, 0:3]: 3 × too large there"),
    ],
)
def test_places(mask, expected):
    rng = np.random.default_rng(0)
    s = specimen(rng, (8, 8))
    s.value[rng.random((8, 8)) < 0.1] = 0
    assert diagnose(by_hand(s, lambda H: np.where(mask(s.value), 3 * H, H))) == expected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2, -2, 3, 0.5, 0.2], "right but for element 1, where x < 0: zero there"),
        ([0.3, -2, 0.7, 0.5, 0.2], "right but for element 1, where x < 0 and |x| > 1: zero there"),
        ([-0.3, 2, -3, -0.5, -2], "right for element 1 only, wrong where x < 0: zero there"),
        ([2, -2, -3, 0.5, 0.2], "right but for elements where x < 0: zero there"),
    ],
)
def test_a_place_by_each_of_its_names(x, expected):
    s = specimen(np.random.default_rng(0), (5,), value=np.array(x), sizes={}, batched=False)
    assert diagnose(by_hand(s, lambda H: np.where(s.value < 0, 0, H))) == expected


def test_a_gradient_that_is_mostly_wrong_is_not_called_right():
    s = specimen(np.random.default_rng(0), (12, 10))
    s.value[...] = np.random.default_rng(1).permutation(np.linspace(0, 10, 120)).reshape(12, 10)
    for bound, words in ((6, "right but for"), (7, "wrong for")):
        wrong = by_hand(s, lambda H, bound=bound: np.where(s.value < bound, 3 * H, H))
        assert re.fullmatch(f"{words} elements where x < [0-9.]+: 3 × too large there", diagnose(wrong))


@pytest.mark.parametrize(
    ("elsewhere", "expected"),
    [
        (0.0, "wrong in every nonzero element (8 of 600)"),
        (1e-18, "wrong in every element large enough to compare (8 of 600)"),
        (1.0, "right but for 8 of 600 elements"),
    ],
)
def test_right_is_only_what_is_large_enough_to_compare(elsewhere, expected):
    """An error that is a share of the gradient can't be seen where the gradient all but vanishes."""
    rng = np.random.default_rng(0)
    s = specimen(rng, (20, 30), value=rng.permutation(np.linspace(2, 3, 600)).reshape(20, 30))
    few = np.isin(np.arange(600), np.arange(5, 600, 79)[:8]).reshape(20, 30)
    truth = [np.where(few, t, elsewhere * t) for t in s.truth]
    wrong = few if elsewhere == 1 else True
    s = s._replace(truth=truth, hand=[t * (1 + 0.1 * wrong * rng.standard_normal(t.shape)) for t in truth])
    assert diagnose(s) == expected


def test_draws_that_are_proportional_count_once():
    """A scalar output's gradients are: one element of two that is zero is no scaled shift."""
    s = specimen(np.random.default_rng(0), (2,), one=None, dYs=[[np.ones(())]] * 3, value=np.ones(2))
    truth = [c * s.truth[0] for c in (1.0, 2.0, -0.7)]
    assert (
        diagnose(s._replace(truth=truth, hand=[t * [1.0, 0.0] for t in truth])) == "right but for element 1: zero there"
    )
