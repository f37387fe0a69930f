"""Segments: empty ones, rows of none, equal maxima, sums in half precision, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import passes
from rules.refusals import refuses

from handgrad import rules

X, IDS = np.array([[[1.0], [3], [3], [5]]]), np.array([[0, 2, 2, -1]])
EXPECTED = {  # Y, dX for dY = 1, 10, 100
    "sum": ([1, 0, 6], [1, 100, 100, 0]),
    "mean": ([1, 0, 3], [1, 50, 50, 0]),
    "max": ([1, -np.inf, 3], [1, 50, 50, 0]),
}


def test_a_segment_without_rows_and_a_row_without_a_segment():
    """And the equal maxima of the last segment."""
    every = [rules.segment_reduce.with_options(segments=3, reduction=reduction) for reduction in EXPECTED]
    dY = np.array([[[1.0], [10], [100]]])
    found = jax.jit(lambda X: [passes(rule, dY, X, IDS) for rule in every])(X)
    for (Y, (dX, _)), (expected, slope) in zip(found, EXPECTED.values(), strict=True):
        assert np.ravel(Y).tolist() == expected
        assert np.ravel(dX).tolist() == slope


def test_half_precision_is_summed_in_float32():
    ones = jnp.ones((1, 4097), jnp.float16)
    ids = jnp.zeros((1, 4097), jnp.uint8)
    every = [rules.segment_reduce.with_options(segments=1, reduction=reduction) for reduction in EXPECTED]
    found = jax.jit(lambda X: [rule.forward(X, ids)[0] for rule in every])(ones)
    assert [float(Y[0, 0]) for Y in found] == [4096, 1, 1]  # 4,097 to float16's even


@pytest.mark.parametrize("reduction", EXPECTED)
def test_what_is_kept(reduction):
    """X and Y by the maximum alone."""
    kept = jax.eval_shape(lambda X: rules.segment_reduce_forward(X, IDS, segments=3, reduction=reduction)[1], X)
    assert (kept.X is None) == (kept.Y is None) == (reduction != "max")


def test_arguments_of_the_wrong_kind():
    rule = rules.segment_reduce
    refuses(rule, "ids must be integers (1, 4), one for each row, got int64 (1, 3)", X, IDS[:, :3], segments=3)
    refuses(rule, "ids must be integers (1, 4), one for each row, got float64 (1, 4)", X, 1.0 * IDS, segments=3)
    refuses(rule, "segments must be a positive integer, got 0", X, IDS, segments=0)
    refuses(rule, "reduction must be 'sum', 'mean' or 'max', got 'min'", X, IDS, segments=3, reduction="min")
