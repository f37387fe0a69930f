"""Random networks before the checker."""

import numpy as np
import pytest

import handgrad as hg
from handgrad.models.random_check import check_random_networks


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_few(dtype):
    report = check_random_networks(4, seed=11, dtype=dtype, draws=2, max_depth=2)
    assert report.ok, report
    assert len(report.rows) == 2
    assert report.name == f"4 random networks in {np.dtype(dtype)}"
    assert {row.dtype for row in report.rows} == {str(np.dtype(dtype))}
    assert {row.leaf.split(":")[0] for row in report.rows} == {"11", "12"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"count": 0}, "count must be"),
        ({"count": 3, "draws": 2}, "count must be a multiple of draws, 2, got 3"),
        ({"count": 2, "max_depth": 0}, "max_depth must be"),
    ],
)
def test_counts_that_make_no_sense(given, sentence):
    with pytest.raises(hg.InputError, match=sentence):
        check_random_networks(**given)
