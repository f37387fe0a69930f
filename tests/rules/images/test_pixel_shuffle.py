"""Pixel shuffle: a known block, that each undoes the other, and what is refused."""

import functools

import jax
import numpy as np
from rules.refusals import refuses

from handgrad import rules


def test_a_block_and_back():
    """The four features of one pixel are a block's elements, row by row."""

    @jax.jit
    def run(X):
        Y = rules.pixel_shuffle(X, factor=2)
        return Y, rules.pixel_unshuffle(Y, factor=2)

    X = np.arange(8.0).reshape(1, 1, 1, 8)
    Y, back = run(X)
    assert np.asarray(Y)[0, :, :, 0].tolist() == [[0, 1], [2, 3]]
    assert np.asarray(Y)[0, :, :, 1].tolist() == [[4, 5], [6, 7]]
    assert (np.asarray(back) == X).all()


def test_bad_input():
    X = np.ones((2, 3, 4, 6))
    shuffle, unshuffle = (functools.partial(refuses, rule) for rule in (rules.pixel_shuffle, rules.pixel_unshuffle))
    shuffle("X must have a multiple of 4 features, got float64 (2, 3, 4, 6)", X, factor=2)
    unshuffle("X's space must be a multiple of factor (2, 2), got float64 (2, 3, 4, 6)", X, factor=2)
    shuffle("factor must be a positive integer, or one for each of 2 axes of space, got 0", X, factor=0)
    unshuffle("X must have shape (batch, *space, n), got float64 (3, 4)", X[0, :, :, 0], factor=2)
