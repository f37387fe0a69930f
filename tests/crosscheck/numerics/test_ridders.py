"""The arithmetic of the ladder, on slopes that are known."""

import numpy as np
import pytest

from handgrad.crosscheck.numerics.ridders import diverges, ridders, roughness, stays

H = 0.25 ** np.arange(2, 12)
COLUMN = H[:, None]
NOTHING = np.full((10, 1), 1e-18)


@pytest.mark.parametrize("power", [1, 2])
def test_a_polynomial_is_extrapolated_exactly(power):
    z = COLUMN**power
    slope, error, coarse = ridders(H, 3 + 5 * z - 7 * z**2, power, NOTHING)
    assert abs(slope[0] - 3) <= error[0] < 1e-12
    assert (coarse.slope[0], coarse.error[0]) == (slope[0], error[0])


def test_finer_steps_veto():
    D = np.where(COLUMN > 1e-4, 1.0, 2.0)
    slope, error, coarse = ridders(H, D, 2, NOTHING)
    assert (slope[0], coarse.slope[0]) == (2, 1)
    assert error[0] < 1e-15


def test_noise_has_no_veto():
    D = 1 + 1e-9 * np.where(np.arange(10) % 2, 1, -1)[:, None] / COLUMN
    slope, error, _ = ridders(H, D, 2, 1e-9 / COLUMN)
    assert abs(slope[0] - 1) <= error[0] < 1e-5


def test_what_is_not_finite_is_no_slope():
    slope, error, _ = ridders(H, np.full((10, 1), np.nan), 2, NOTHING)
    assert np.isnan(slope[0])
    assert error[0] == np.inf


def test_roughness_is_the_noise_whatever_the_slope_and_the_curvature():
    rng = np.random.default_rng(0)
    noise = 1e-9 * rng.normal(size=(10, 2000))
    found = roughness(H, 3 + 5 * COLUMN + noise / COLUMN)
    assert 0.7e-9 < np.median(found) < 2e-9
    assert np.all(roughness(H, 3 + 5 * COLUMN) < 1e-20)


@pytest.mark.parametrize(
    ("D", "expected"),
    [
        (1 / COLUMN, True),
        (-(COLUMN**-0.5), True),
        (np.log(COLUMN), True),
        (1 + COLUMN, False),
        (COLUMN**0.5, False),
        (np.where(np.arange(10) % 2, 1, -1)[:, None] / COLUMN, False),
    ],
)
def test_diverges(D, expected):
    assert diverges(D, NOTHING)[0] == expected


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (2 + COLUMN, True),
        (COLUMN, False),
        (COLUMN**0.5, False),
        (np.where(COLUMN > 1e-4, 2.0, 0.0), False),
        (1 / COLUMN, False),
        (NOTHING, False),
    ],
)
def test_stays(gap, expected):
    assert stays(H, gap, NOTHING)[0] == expected
