"""What factors refuse: nothing is broadcast, nothing is guessed."""

import re

import numpy as np
import pytest
from factors.table import ROWS, WINDOWS, recomputed
from helpers import assert_refused

import handgrad as hg
from handgrad.factors import Correlation, Hadamard, Outer, PerExample, Scatter, Shared, Stacked, Total

A, DELTA = np.ones((3, 4, 5)), np.ones((3, 4, 2))
OUTER = Outer(A, DELTA)


@pytest.mark.parametrize(
    "factor",
    [
        Outer(np.ones((4, 3)), np.ones((4, 2))),
        Total(np.ones((4, 3))),
        Hadamard(np.ones((4, 3)), np.ones((4, 3))),
        PerExample(np.ones((4, 3))),
        Stacked(Outer(np.ones((2, 4, 3)), np.ones((2, 4, 2)))),
        Shared((Total(np.ones((4, 3))), Total(np.ones((4, 3))))),
        Scatter(np.ones((4, 3), int), np.ones((4, 3, 2)), 2),
        recomputed(np.ones((4, 3, 5)), np.ones((4, 3, 2))),
    ],
    ids=lambda factor: type(factor).__name__,
)
def test_weights_of_a_wrong_length(factor):
    must = rf"{type(factor).__name__}.sum: weights must .*\(4,\).* got "
    assert_refused(
        {
            must + r"float64 \(3,\)": lambda: factor.sum(np.ones(3)),
            must + r"float64 \(1,\)": lambda: factor.sum(np.ones(1)),
            must + r"float64 \(4, 1\)": lambda: factor.sum(np.ones((4, 1))),
            must + r"float64 \(\)": lambda: factor.sum(np.float64(2)),
            must + "list": lambda: factor.sum([1.0] * 4),
        }
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Outer(np.ones((4, 3)), np.ones((4, 2))), Outer(np.ones((4, 2)), np.ones((4, 3)))),
        (Outer(np.ones((4, 3)), np.ones((4, 2))), Outer(np.ones((1, 3)), np.ones((1, 2)))),
        (Outer(np.ones((4, 3)), np.ones((4, 2))), PerExample(np.ones((2, 3, 2)))),
        (Total(np.ones((4, 3))), Total(np.ones((4, 1)))),
        (Hadamard(np.ones((4, 3)), np.ones((4, 3))), Hadamard(np.ones((4, 1)), np.ones((4, 1)))),
        (PerExample(np.ones((4, 3))), PerExample(np.ones((4, 1)))),
        (ROWS["scatter-tokens"].make(*ROWS["scatter-tokens"].sides(0)), PerExample(np.ones((4, 5, 3)))),
    ],
    ids=["transposed", "batch-of-1", "batch-of-2", "total", "hadamard", "per_example", "scatter"],
)
def test_inner_of_unlike_parameters(one, two):
    """What JAX would broadcast, or clamp, is not the inner product of any two gradients."""
    with pytest.raises(hg.InputError, match=rf"^{type(one).__name__}.inner: other must have \(batch, \*shape\) "):
        one.inner(two)


SHAPES = {
    "outer": (lambda: Outer(np.ones((4, 6, 3)), np.ones((6, 4, 2))), "Outer: Delta must have shape (4, 6, 2)"),
    "hadamard": (lambda: Hadamard(np.ones((4, 3)), np.ones((1, 3))), "Hadamard: Delta must have shape (4, 3)"),
    "sites": (
        lambda: Shared((Total(np.ones((4, 3))), Total(np.ones((4, 1))))),
        "Shared: sites must have one (batch, *shape), got (4, 3), (4, 1)",
    ),
    "ids": (
        lambda: Scatter(np.zeros((4, 2), int), np.ones((4, 3, 2)), 5),
        "Scatter: ids must have shape (4, 3) (Delta's examples and tokens), got int64 (4, 2)",
    ),
    "positions": (
        lambda: Scatter(None, np.ones((4, 3, 2)), 2),
        "Scatter: Delta must have at most 2 tokens, one for each row, got float64 (4, 3, 2)",
    ),
    **{
        f"correlation-{shape}": (
            lambda shape=shape: Correlation(np.ones((4, 4, 3, 2)), np.ones(shape), WINDOWS["plain"][0]),
            "Correlation: Delta must have shape (4, 3, 2, 3) (X's examples and the window's outputs), got float64",
        )
        for shape in ((3, 3, 2, 3), (4, 4, 2, 3), (4, 3, 1, 3), (1, 3, 2, 3))
    },
}


def test_sides_of_different_examples():
    assert_refused({re.escape(said) + ".*": lambda make=make: make().sum() for make, said in SHAPES.values()})


def test_methods_and_projections():
    stacked, one = Stacked(Outer(A[None], DELTA[None])), PerExample(np.ones((2, 3)))
    assert_refused(
        {
            "Outer.sq_norms: method must be 'auto', 'gram' or 'direct', got 'fast'": lambda: OUTER.sq_norms("fast"),
            r"Outer.project: P must have shape \(5, r\), got float64 \(5,\)": lambda: OUTER.project(np.ones(5)),
            r"Stacked.project: P must have shape \(1, 5, r\), got .* \(5, 2\)": lambda: stacked.project(
                np.ones((5, 2))
            ),
            r"PerExample.project: expected a matrix's factor, got that of \(3,\)": lambda: one.project(np.ones((3, 1))),
        }
    )
