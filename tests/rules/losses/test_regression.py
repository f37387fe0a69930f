"""Losses of the error: every digit over the whole range of float32 and bfloat16, and at the edges."""

import numpy as np
from precision import over_the_whole_range
from rules.losses.rows import assert_edges, assert_rounded_once, subject

OPS = ("squared_error", "l2_loss", "absolute_error", "huber_loss")


def of_error(op, value, slope, **options):
    """Value and slope by the error. a − y itself is exact: no input's last digit moves a result."""

    def truth(a, y, d):
        return value(a - y), d * slope(a - y), -d * slope(a - y)

    targets, bars = (0.0, 1.0, -3.0, 1e30, -1e-30), {"C": 3, "dA": 2, "dY": 2}
    return subject(op, truth, targets, options=options, bars=bars)


SUBJECTS = [
    of_error("squared_error", np.square, lambda e: 2 * e),
    of_error("l2_loss", lambda e: e * (e / 2), lambda e: e),
    of_error("absolute_error", np.abs, np.sign),
    of_error(
        "huber_loss",
        lambda e: np.where(np.abs(e) < 0.75, e * (e / 2), 0.75 * (np.abs(e) - 0.375)),
        lambda e: np.clip(e, -0.75, 0.75),
        delta=0.75,
    ),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_edges():
    assert_edges(
        weightless=[(op, [[x]], [[0.0]]) for op in OPS for x in (np.inf, np.nan)],
        far=[(op, [[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]]) for op in OPS],
    )
    for op in ("squared_error", "absolute_error"):
        assert_rounded_once(op, 1.0, 0.0)
