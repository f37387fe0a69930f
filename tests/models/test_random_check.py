"""Random networks before the checker."""

import numpy as np
import pytest
from helpers import assert_refused

from handgrad.models.random_check import check_random_networks


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_few(dtype):
    report = check_random_networks(4, seed=11, dtype=dtype, draws=2, max_depth=2)
    assert report.ok, report
    assert len(report.rows) == 2
    assert report.name == f"4 random networks in {np.dtype(dtype)}"
    assert {row.dtype for row in report.rows} == {str(np.dtype(dtype))}
    assert {row.leaf.split(":")[0] for row in report.rows} == {"11", "12"}


def test_counts_that_make_no_sense():
    rows = {
        "check_random_networks: count must be a positive integer, got 0": {"count": 0},
        "check_random_networks: count must be a multiple of draws, 2, got 3": {"count": 3, "draws": 2},
        "check_random_networks: max_depth must be a positive integer, got 0": {"count": 2, "max_depth": 0},
    }
    for sentence, given in rows.items():
        assert_refused({sentence: lambda given=given: check_random_networks(**given)})
