"""The Wasserstein distance: against SciPy, what equal elements and equal samples give, refusals."""

import numpy as np
import pytest
from rules.losses.rows import assert_edges, outcomes
from rules.refusals import refuses

from handgrad import rules


def test_against_scipy():
    """W₁ of samples, some elements alike."""
    stats = pytest.importorskip("scipy.stats")
    A, Y = np.random.default_rng(0).integers(-9, 9, (2, 5, 8)).astype(float)
    ((C, *_),) = outcomes([("wasserstein_distance", A, Y)])
    np.testing.assert_allclose(C, [stats.wasserstein_distance(a, y) for a, y in zip(A, Y, strict=True)], rtol=1e-13)


def test_matching():
    """Each element moves towards its own; equal ones are matched in their order; no order of either sample matters."""
    A, Y = np.array([[3.0, 1.0, 1.0, 2.0]]), np.array([[2.0, 5.0, 1.0, 0.0]])
    one, two, itself = outcomes(
        [
            ("wasserstein_distance", A, Y),
            ("wasserstein_distance", A, Y, {"order": 2}),
            ("wasserstein_distance", A, A[:, ::-1].copy()),
        ]
    )
    assert [a.tolist() for a in one] == [[0.75], [[-0.25, 0.25, 0.0, 0.0]], [[0.0, 0.25, 0.0, -0.25]]]
    assert [a.tolist() for a in two] == [[1.25], [[-1.0, 0.5, 0.0, 0.0]], [[0.0, 1.0, 0.0, -0.5]]]
    assert not any(np.any(a) for a in itself)


def test_edges():
    assert_edges(
        weightless=[("wasserstein_distance", [[np.nan, 1.0]], [[1.0, 0.0]])],
        far=[("wasserstein_distance", [[3.0, 1.0]], [[1.0, -1.0]])],
        far_targets=True,
    )


def test_bad_input():
    A = np.zeros((4, 5))
    refuses(
        rules.wasserstein_distance,
        "the target Y must have shape (4, 5) like the samples A, got float64 (4, 4)",
        A,
        A[:, 1:],
    )
    refuses(rules.wasserstein_distance, "order must be 1 or 2, got 3", A, A, order=3)
