"""Padding: that NaNs stay where they are, what is kept, and what is refused."""

import functools

import jax
import numpy as np
from rules.refusals import refuses

from handgrad import rules

X = np.ones((2, 4, 3))


def test_what_is_kept():
    kept = jax.eval_shape(functools.partial(rules.pad_forward, padding=2), X)[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == 0


def test_a_nan_reaches_those_that_copied_it_and_no_other():
    dY = np.ones((1, 6, 1))
    dY[0, 0] = np.nan  # copies element 2 in a mirror at element 0's center

    @jax.jit
    def run(x, dY):
        residuals = rules.pad_forward(x, padding=((2, 1),), mode="reflect")[1]
        return rules.pad_backward(residuals, dY, padding=((2, 1),), mode="reflect")[0]

    np.testing.assert_array_equal(np.ravel(run(np.ones((1, 3, 1)), dY)), [1, 3, np.nan])


def test_bad_input():
    refuse = functools.partial(refuses, rules.pad)
    pairs = "padding must be an integer, 0 at least, or a pair of them for each of 1 axes of space, got"
    for padding in (-1, 1.0, True, ((1, 2), (1, 2)), (1, 2), ((1, -1),)):
        refuse(f"{pairs} {padding}", X, padding=padding)
    refuse("X must have shape (batch, *space, n), got float64 (2, 4)", X[..., 0], padding=1)
    refuse(
        "mode must be 'constant', 'edge', 'reflect', 'symmetric' or 'wrap', got 'circular'",
        X,
        padding=1,
        mode="circular",
    )
    refuse("value must be a number, got '0'", X, padding=1, value="0")
    refuse("X must have an element to copy, got float64 (2, 0, 3)", X[:, :0], padding=1, mode="wrap")
