"""Gradients of another shape or dtype, and with numbers that are not finite."""

import jax
import numpy as np
import pytest
from crosscheck.errors.specimens import by_hand, set_at, specimen

from handgrad.crosscheck.errors import diagnose


@pytest.mark.parametrize(
    ("due", "change", "expected"),
    [
        ((3,), lambda h: np.stack([h / 5] * 5), "misses the sum over axis 0 (broadcast): shape (5, 3) instead of (3,)"),
        ((3,), lambda h: np.stack([h] * 5), "misses the mean over axis 0 (broadcast): shape (5, 3) instead of (3,)"),
        (
            (1, 3),
            lambda h: np.tile(h / 5, (5, 1)),
            "misses the sum over axis 0 (broadcast): shape (5, 3) instead of (1, 3)",
        ),
        (
            (3,),
            lambda h: np.tile(h / 20, (5, 4, 1)),
            "misses the sum over axes 0 and 1 (broadcast): shape (5, 4, 3) instead of (3,)",
        ),
        ((2, 3), lambda h: h.T, "transposed: shape (3, 2) instead of (2, 3)"),
        ((2, 3), lambda h: h.sum(0), "takes the sum over axis 0: shape (3,) instead of (2, 3)"),
        ((3,), lambda h: h[None], "right but for axes of length 1: shape (1, 3) instead of (3,)"),
        ((2, 3), lambda h: h.ravel(), "right but for its shape: shape (6,) instead of (2, 3)"),
        ((2, 3), lambda h: h.T.ravel(), "the right numbers in another order: shape (6,) instead of (2, 3)"),
        ((2, 3), lambda h: np.ones((4, 4)), "shape (4, 4) instead of (2, 3)"),
        ((), lambda h: np.ones(2), "shape (2,) instead of ()"),
    ],
)
def test_shapes(due, change, expected):
    s = specimen(np.random.default_rng(0), due)
    assert diagnose(s._replace(hand=[change(h) for h in s.hand])) == expected


def test_the_gradient_of_a_leaf_of_another_shape():
    rng = np.random.default_rng(0)
    b = [rng.standard_normal(4) for _ in range(3)]
    s = specimen(rng, (3, 4), others={"b": b}, hand=b)
    assert diagnose(s) == "the gradient of b: shape (4,) instead of (3, 4)"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda H: H * np.nan, "NaN in every element"),
        (lambda H: set_at(H, (2,), lambda h: h * np.nan), "NaN in 4 of 12 elements (row 2)"),
        (lambda H: set_at(H, (2,), lambda h: h + np.inf), "infinite in 4 of 12 elements (row 2)"),
        (
            lambda H: set_at(H, (2,), lambda h: np.where(h > 0, np.inf, np.nan)),
            "NaN or infinite in 4 of 12 elements (row 2)",
        ),
    ],
)
def test_not_finite(change, expected):
    assert diagnose(by_hand(specimen(np.random.default_rng(0)), change)) == expected


def test_what_is_no_array_of_numbers():
    s = specimen(np.random.default_rng(0))
    assert diagnose(s._replace(hand=[np.zeros((3, 4), jax.dtypes.float0)] * 3)) == "dtype float0 instead of float64"
    assert diagnose(s._replace(hand=[np.ones((3, 4), int)] * 3)) == "dtype int64 instead of float64; 1 in every element"
    assert diagnose(s._replace(hand=[np.ones((2, 4)), *s.hand[1:]])) == "a shape that depends on the cotangent"


def test_nan_at_zero():
    s = specimen(np.random.default_rng(0))
    s.value[1, :2] = 0
    wrong = by_hand(s, lambda H: np.where(s.value == 0, np.nan, H))
    assert diagnose(wrong) == "NaN in 2 of 12 elements (where x == 0)"


def test_rounding_noise_is_no_dtype():
    """A sum that cancels leaves a few bits, which any precision holds: that is zero, and computed in none."""
    s = specimen(np.random.default_rng(0), (6, 6))
    assert diagnose(by_hand(s, lambda H: 2.0**-55 * np.round(H))) == "zero"
