"""A gradient that is a multiple of the right one, as a whole or in each slice."""

import numpy as np
import pytest
from crosscheck.errors.specimens import by_hand, specimen

from handgrad.crosscheck.errors import diagnose


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (2, "2 × too large"),
        (1 / 3, "a third of what it should be"),
        (1 / 4, "a quarter of what it should be"),
        (2 / 3, "2/3 of what it should be"),
        (4 / 3, "4/3 × too large"),
        (1.01, "1.01 × too large"),
        (0.1, "0.1 of what it should be"),
        (1000, "1000 × too large"),
        (1.23456789e-9 + 1, "1.000000001235 × too large"),
        (3.0042386801, "3.004 × too large"),
        (np.sqrt(32), "5.657 × too large (= √batch)"),
        (32 / 31, "1.032 × too large (= batch / (batch − 1))"),
        (np.log(2), "0.693 of what it should be (= ln 2)"),
        (32.0, "sum instead of mean: factor 32 = batch"),
        (1 / 7, "mean instead of sum: factor 1/7 = 1/n_out"),
        (-1 / 32, "mean instead of sum: factor 1/32 = 1/batch and sign flipped"),
        (1 / 224, "0.004464 of what it should be (= 1/(batch × n_out))"),
    ],
)
def test_factors(c, expected):
    s = specimen(np.random.default_rng(0), sizes={"batch": 32, "n_out": 7})
    assert diagnose(by_hand(s, lambda H: c * H)) == expected


def test_a_small_number_is_no_length():
    """A 2 is most often a constant, and a 4 may be the square root of a longer axis."""
    s = specimen(np.random.default_rng(0), sizes={"batch": 2, "n_in": 4, "n_out": 16})
    for c, expected in ((2, "2 × too large"), (1 / 2, "half of what it should be")):
        assert diagnose(by_hand(s, lambda H, c=c: c * H)) == expected
    assert diagnose(by_hand(s, lambda H: 4 * H)) == "4 × too large (= n_in or √n_out)"


def test_one_number_is_only_a_factor():
    s = specimen(np.random.default_rng(0), (1,), draws=1, terms=())
    for c, expected in ((2, "2 × too large"), (-1, "sign flipped"), (0, "zero"), (0.37, "0.37 of what it should be")):
        assert diagnose(by_hand(s, lambda H, c=c: c * H)) == expected


def test_a_large_factor_of_small_numbers_excuses_no_others():
    rng = np.random.default_rng(0)
    s = specimen(rng, (3, 4), sizes={})
    small = np.array([1, 1, 1e-14])[:, None]
    s = s._replace(truth=[small * t for t in s.truth], hand=[np.array([1, 1, 1e-8])[:, None] * t for t in s.truth])
    assert diagnose(s) == "right but for row 2: 1000000 × too large there"
    noisy = by_hand(s, lambda H: H + 1e-10 * np.array([1, 1, 0])[:, None] * rng.standard_normal(H.shape))
    assert diagnose(noisy) == ""
