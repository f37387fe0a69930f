"""Losses of the error: every digit over the whole range of float32 and bfloat16, and at the edges."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from losses import assert_finite_where_it_fits, assert_nothing_from_a_weight_of_zero, assert_rounded_once, pairs, silent
from precision import Subject, assert_precise

OPS = ("squared_error", "l2_loss", "absolute_error", "huber_loss")


def of_error(op, value, slope, **options):
    """Value and slope by the error. a − y itself is exact: no input's last digit moves a result."""
    return Subject(
        op,
        "",
        ("C", "dA", "dY"),
        functools.partial(pairs, (0.0, 1.0, -3.0, 1e30, -1e-30)),
        silent(lambda a, y, d: (value(a - y), d * slope(a - y), -d * slope(a - y))),
        options=options,
        bars={"C": 3, "dA": 2, "dY": 2},
    )


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


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_over_the_whole_range(subject, dtype):
    assert_precise(subject, dtype)


def test_edges():
    assert_nothing_from_a_weight_of_zero(*((op, [[x]], [[0.0]]) for op in OPS for x in (np.inf, np.nan)))
    assert_finite_where_it_fits(*((op, [[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]]) for op in OPS))
    for op in ("squared_error", "absolute_error"):
        assert_rounded_once(op, 1.0, 0.0)
