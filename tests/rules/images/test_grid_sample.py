"""Grid sampling: at centers and borders, far outside, the image itself, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules

X = np.array([1.0, 2, 4, 8])[None, :, None]


def test_kinks_and_places_far_outside():
    """With aligned corners the elements of X stand at ±1 and ±1/3: at a center the slope is that of the cell behind,
    at the border and beyond 0, and of zeros outside what they say."""
    grid = np.array([-1, -1 / 3, 1, -1e30, 1e30, np.inf])[None, :, None]
    border, zeros = ({"align_corners": True, "padding": padding} for padding in ("border", "zeros"))

    @jax.jit
    def run(grid):
        return [passes(rules.grid_sample.with_options(**of), np.ones((1, 6, 1)), X, grid) for of in (border, zeros)]

    (Y, (dX, dgrid)), (of_zeros, (dX_zeros, dgrid_zeros)) = run(grid)
    np.testing.assert_allclose(np.ravel(Y), [1, 2, 8, 1, 8, 8], rtol=1e-15)
    np.testing.assert_allclose(np.ravel(dX), [2, 1, 0, 3], atol=1e-15)
    np.testing.assert_allclose(np.ravel(dgrid), [0, 3, 0, 0, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(np.ravel(of_zeros), [1, 2, 8, 0, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(np.ravel(dX_zeros), [1, 1, 0, 1], atol=1e-15)
    np.testing.assert_allclose(np.ravel(dgrid_zeros), [1.5, 3, -12, 0, 0, 0], rtol=1e-15)


def test_reflections():
    """At the margins the image is mirrored with its last element twice, at aligned corners once; there the slope is 0.
    Places may be far away, and an image of one element is the same everywhere."""
    given = np.array([0.0, 0.75, 1, 1.5, 2, 3, 4.75, 1e300]), np.array([1.0, -1, 1 / 3 + 2, -1 / 3 - 2, 5, 4e18])
    margins, corners = ({"padding": "reflection", "align_corners": aligned} for aligned in (False, True))

    @jax.jit
    def run(*grids):
        rows = [(X, grid, of) for grid, of in zip(grids, (margins, corners), strict=True)]
        rows += [(X[:, :1], grids[0], margins), (X[:, :1], grids[1], corners)]
        return [
            passes(rules.grid_sample.with_options(**of), np.ones((1, grid.size, 1)), X, grid[None, :, None])
            for X, grid, of in rows
        ]

    (Y, (_, dgrid)), (of_corners, (dX, dgrid_corners)), *of_one = run(*given)
    np.testing.assert_allclose(np.ravel(Y)[:7], [3, 8, 8, 6, 3, 1, 8], rtol=1e-14)
    np.testing.assert_allclose(np.ravel(dgrid)[:7], [4, 0, 0, -8, -4, 0, 0], rtol=1e-14)
    np.testing.assert_allclose(np.ravel(of_corners)[:5], [8, 1, 2, 4, 8], rtol=1e-14)
    np.testing.assert_allclose(np.ravel(dgrid_corners)[[0, 1, 4]], 0)
    assert all(1 <= y <= 8 for y in (Y[0, 7, 0], of_corners[0, 5, 0]))
    assert np.sum(dX) == 6
    assert all((np.asarray(Y) == 1).all() and not np.asarray(d[1]).any() for Y, d in of_one)


def test_the_image_itself():
    """The places of X's own elements give X, and dX = dY."""
    image = np.random.default_rng(0).standard_normal((2, 3, 5, 2))
    y, x = ((2 * np.arange(n) + 1) / n - 1 for n in (3, 5))
    grid = np.broadcast_to(np.stack(np.meshgrid(x, y), -1), (2, 3, 5, 2))
    Y, (dX, _) = jax.jit(lambda grid: passes(rules.grid_sample, 2 * image, image, grid))(jnp.asarray(grid))
    np.testing.assert_allclose(Y, image, atol=1e-14)
    np.testing.assert_allclose(dX, 2 * image, atol=1e-14)


def test_mixed_dtypes():
    given = jax.ShapeDtypeStruct((1, 4, 1), "bfloat16"), jax.ShapeDtypeStruct((1, 3, 1), "float32")
    Y, kept = jax.eval_shape(rules.grid_sample_forward, *given)
    dX, dgrid = jax.eval_shape(rules.grid_sample_backward, kept, Y)
    assert (Y.dtype, dX.dtype, dgrid.dtype) == ("float32", "bfloat16", "float32")


def test_bad_input():
    refuse, grid = functools.partial(refuses, rules.grid_sample), np.ones((1, 3, 1))
    refuse("X must have shape (batch, *space, n), space not empty, got float64 (1, 4)", X[..., 0], grid)
    refuse("grid must have shape (1, 3, 1) to meet X (1, 4, 1), got float64 (1, 3, 2)", X, np.ones((1, 3, 2)))
    refuse("grid must have shape (1, 3, 1) to meet X (1, 4, 1), got float64 (2, 3, 1)", X, np.ones((2, 3, 1)))
    refuse("grid must have a floating-point dtype, got int64 (1, 3, 1)", X, grid.astype(int))
    refuse("method must be 'linear' or 'nearest', got 'cubic'", X, grid, method="cubic")
    refuse("padding must be 'zeros', 'border' or 'reflection', got 'wrap'", X, grid, padding="wrap")
