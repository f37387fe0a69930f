"""What factors refuse: nothing is broadcast, nothing is guessed."""

import numpy as np
import pytest
from factors.table import ROWS, WINDOWS

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
    ],
    ids=lambda factor: type(factor).__name__,
)
def test_weights_of_a_wrong_length(factor):
    for weights, got in (
        (np.ones(3), "float64 (3,)"),
        (np.ones(1), "float64 (1,)"),
        (np.ones((4, 1)), "float64 (4, 1)"),
        (np.float64(2), "float64 ()"),
        ([1.0, 1.0, 1.0, 1.0], "list"),
    ):
        with pytest.raises(hg.InputError) as raised:
            factor.sum(weights)
        message = str(raised.value)
        assert message.startswith(f"{type(factor).__name__}.sum: weights must ")
        assert "(4,)" in message
        assert message.endswith(f"got {got}")


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


@pytest.mark.parametrize(("make", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_sides_of_different_examples(make, message):
    with pytest.raises(hg.InputError) as raised:
        make().sum()
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OUTER.sq_norms("fast"), "Outer.sq_norms: method must be 'auto', 'gram' or 'direct', got 'fast'"),
        (
            lambda: Stacked(Outer(A[None], DELTA[None])).project(np.ones((5, 2))),
            "Stacked.project: P must have shape (1, 5, r), got float64 (5, 2)",
        ),
        (lambda: OUTER.project(np.ones(5)), "Outer.project: P must have shape (5, r), got float64 (5,)"),
        (
            lambda: PerExample(np.ones((2, 3))).project(np.ones((3, 1))),
            "PerExample.project: expected a matrix's factor, got that of (3,)",
        ),
    ],
)
def test_methods_and_projections(call, message):
    with pytest.raises(hg.InputError) as raised:
        call()
    assert str(raised.value) == message
