"""Resizing: constants stay, what a NaN reaches, the order of the axes, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from rules.refusals import refuses

from handgrad import rules

METHODS = ("nearest", "linear", "cubic", "nearest-pytorch", "cubic-pytorch")


def test_a_constant_stays_and_so_does_the_sum_of_the_cotangent():
    """The rows of R sum to 1: Y = 1 for X = 1, and Σ dX = Σ dY."""
    dY = np.random.default_rng(0).standard_normal((1, 7, 2, 1))
    options = [{"method": method} for method in METHODS]
    options += [{"method": "cubic-pytorch", "antialias": False}, {"method": "linear", "align_corners": True}]

    @jax.jit
    def run(X, dY):
        found = []
        for of in options:
            Y, residuals = rules.resize_forward(X, size=(7, 2), **of)
            found.append((Y, jnp.sum(rules.resize_backward(residuals, dY, size=(7, 2), **of)[0])))
        return found

    for Y, total in run(np.ones((1, 3, 5, 1)), dY):
        np.testing.assert_allclose(Y, np.ones((1, 7, 2, 1)), rtol=1e-14)
        np.testing.assert_allclose(total, dY.sum(), rtol=1e-13)


def test_what_a_nan_reaches():
    """Of the nearest, its copies alone, both ways."""
    x, dy = np.array([1.0, np.nan, 3.0])[None, :, None], np.array([1.0, 1, np.nan, 1, 1, 1])[None, :, None]

    @jax.jit
    def run(x, dy):
        Y, residuals = rules.resize_forward(x, size=6, method="nearest")
        return Y, rules.resize_backward(residuals, dy, size=6, method="nearest")[0]

    Y, dX = run(x, dy)
    np.testing.assert_array_equal(np.ravel(Y), [1, 1, np.nan, np.nan, 3, 3])
    np.testing.assert_array_equal(np.ravel(dX), [2, np.nan, 2])


def test_the_axis_that_shrinks_the_most_goes_first():
    """(8, 8) to (2, 16): the product with the axis of 2 comes first, and on the way back that of 16 to 8."""

    def both(x, dy):
        Y, residuals = rules.resize_forward(x, size=(2, 16))
        return Y, rules.resize_backward(residuals, dy, size=(2, 16))

    shapes = (jax.ShapeDtypeStruct((1, *space, 1), np.float32) for space in ((8, 8), (2, 16)))
    sizes = [
        sorted(eqn.outvars[0].aval.shape)[-2:]
        for eqn in jax.make_jaxpr(both)(*shapes).eqns
        if eqn.primitive.name == "dot_general"
    ]
    assert sizes == [[2, 8], [2, 16], [2, 8], [8, 8]]


def test_what_is_kept_and_mixed_dtypes():
    Y, kept = jax.eval_shape(
        functools.partial(rules.resize_forward, size=3), jax.ShapeDtypeStruct((1, 5, 2), "bfloat16")
    )
    assert (Y.shape, Y.dtype) == ((1, 3, 2), jnp.bfloat16)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == 0


def test_bad_input():
    X, refuse = np.ones((2, 4, 3)), functools.partial(refuses, rules.resize)
    refuse("X must have shape (batch, *space, n), space not empty, got float64 (2, 4)", X[..., 0], size=2)
    refuse("X must have shape (batch, *space, n), space not empty, got float64 (2, 0, 3)", X[:, :0], size=2)
    refuse("size must be a positive integer, or one for each of 1 axes of space, got 0", X, size=0)
    refuse("method must be 'nearest', 'linear', 'cubic', … or 'cubic-pytorch', got 'area'", X, size=2, method="area")
    refuse(
        "align_corners must be False with method 'nearest', got True", X, size=2, method="nearest", align_corners=True
    )
