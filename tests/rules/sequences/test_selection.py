"""Selection: permutations and places, indices outside, NaN, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

X = np.array([[3.0, 1, 2, 1], [0, np.nan, -1, 5]])
INDICES = np.array([[3, 3, -1], [0, 4, 3]])
DY = np.array([[1.0, 10, 100], [2, 20, 200]])


@functools.cache
def found():
    @jax.jit
    def run(X, indices, dY):
        order = rules.sort_forward(X)[1].indices, rules.sort_forward(X, descending=True)[1].indices
        places = rules.top_k_forward(X, k=2)[1].indices
        read, kept = rules.gather_forward(X, indices)
        pulled = rules.gather_backward(kept, dY)[0]
        into, kept = rules.scatter_add_forward(X, indices, dY)
        return order, places, (read, pulled), (into, *rules.scatter_add_backward(kept, X))

    return jax.tree.map(np.asarray, run(X, INDICES, DY))


def test_the_permutation_is_kept():
    """Stable in both directions; NaN counts as the largest."""
    order, places, *_ = found()
    assert order[0].tolist() == [[1, 3, 2, 0], [2, 0, 3, 1]]
    assert order[1].tolist()[0] == [0, 2, 1, 3]
    assert places[0].tolist() == [0, 2]


def test_an_index_outside():
    """A gather reads NaN there, and no cotangent comes back; a scatter drops it, with a cotangent of 0. So does −1."""
    *_, (read, pulled), (into, dX, _, dU) = found()
    np.testing.assert_array_equal(read, [[1, 1, np.nan], [0, np.nan, 5]])
    np.testing.assert_array_equal(pulled, [[0, 0, 0, 11], [2, 0, 0, 200]])
    np.testing.assert_array_equal(into, [[3, 1, 2, 12], [2, np.nan, -1, 205]])
    np.testing.assert_array_equal(dX, X)
    np.testing.assert_array_equal(dU, [[1, 1, 0], [0, 0, 5]])


def test_half_precision_is_summed_in_float32():
    """4,097 cotangents of 1 for one element, and as many added to it."""
    ones, indices = jnp.ones((1, 4097), jnp.float16), np.zeros((1, 4097), np.int8)

    @jax.jit
    def run(ones):
        (dX, _) = rules.gather_backward(rules.gather_forward(ones[:, :2], indices)[1], ones)
        return dX, rules.scatter_add_forward(ones[:, :2], indices, ones)[0]

    assert [int(a[0, 0]) for a in run(ones)] == [4096, 4096]  # 4,097 and 4,098 to float16's even


def test_a_sum_in_the_wider_dtype_of_two():
    """Thirds of float32 added to zeros of float64: not rounded to float32 in between."""
    U = np.full((1, 3), 1 / 3, np.float32)
    Y = jax.jit(rules.scatter_add)(np.zeros((1, 2)), np.ones((1, 3), int), U)
    np.testing.assert_array_equal(Y, [[0, 3 * float(U[0, 0])]])


def test_arguments_of_the_wrong_kind():
    refuse = functools.partial(refuses, rules.gather)
    refuse("axis must be one of X's behind the batch, got 0 for float64 (2, 4)", X, INDICES, axis=0)
    refuse("indices must be integers (2, k), as X along other axes, got float64 (2, 3)", X, DY)
    refuse("indices must be integers (2, 4, k), as X along other axes, got int64 (2, 3)", np.ones((2, 4, 5)), INDICES)
    refuse("indices must be integers (2, k), as X along other axes, got int64 (1, 3)", X, INDICES[:1])
    refuses(rules.scatter_add, "U must have shape (2, 3) (a number for each index), got float64 (2, 4)", X, INDICES, X)
    refuses(rules.sort, "descending must be True or False, got 'yes'", X, descending="yes")
    refuses(rules.top_k, "k must be at most the length of the last axis, 4, got 5", X, k=5)
    refuses(rules.top_k, "k must be a positive integer, got 0", X, k=0)
    assert_refused(
        {
            r"gather_forward: x must be a pair \(X, indices\), got float64 \(2, 4\)": lambda: hg.gather().forward(
                (), X
            ),
            r"scatter_add_forward: x must be a tuple \(X, indices, U\), got tuple": lambda: hg.scatter_add().forward(
                (), (X, INDICES)
            ),
        }
    )
