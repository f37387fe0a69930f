"""Convolution is a matrix product over patches (im2col) and a correlation."""

import functools
import itertools

import jax
import numpy as np
import pytest
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules
from handgrad.factors import Outer
from handgrad.factors.windows import Window, patches
from handgrad.rules.images._windows import make_window

RNG = np.random.default_rng(0)
EVERY = {"strides": (2, 3), "padding": ((1, 0), (2, 3)), "dilation": (2, 1)}


def normal(*shape):
    return RNG.standard_normal(shape)


def by_loops(X, K, strides, padding, dilation, groups):
    """The definition, one number at a time, in NumPy; two axes of space."""
    X = np.pad(X, ((0, 0), *padding, (0, 0)))
    (k, k2, of_group, n_out), out_of_group = K.shape, K.shape[-1] // groups
    m = [
        (n - d * (size - 1) - 1) // s + 1
        for n, size, s, d in zip(X.shape[1:3], (k, k2), strides, dilation, strict=True)
    ]
    Y = np.zeros((len(X), *m, n_out))
    for b, i, j, o, t, u in np.ndindex(*Y.shape, k, k2):
        first = o // out_of_group * of_group
        seen = X[b, strides[0] * i + dilation[0] * t, strides[1] * j + dilation[1] * u, first : first + of_group]
        Y[b, i, j, o] += seen @ K[t, u, :, o]
    return Y


def test_one_number_at_a_time():
    plain = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    X = normal(2, 5, 6, 4)
    for options in (plain, {**EVERY, "groups": 2}):
        K = normal(3, 2, 4 // options["groups"], 2)
        assert_same(np.asarray(rules.convolution_forward(X, K, **options)[0]), by_loops(X, K, **options))


def test_it_is_linear_on_patches():
    """Y = P K, dK = Pᵀ dY: the gradient is an Outer whose left side is the patches. With no options, and with all."""
    X, K = normal(2, 5, 6, 3), normal(3, 2, 3, 4)
    every = {"strides": 1, "padding": "SAME", "dilation": 1}, EVERY
    windows = [make_window("", (5, 6), (3, 2), **options) for options in every]

    @jax.jit
    def both(X, K, *dYs):
        found, expected = [], []
        for options, window, dY in zip(every, windows, dYs, strict=True):
            P = patches(X, window)
            P = P.reshape(*P.shape[:3], -1)
            Y, residuals = rules.convolution_forward(X, K, **options)
            _, dK, _ = rules.convolution_backward(residuals, dY, **options)
            outer = Outer(P, dY)
            found.append((Y, dK.sum().reshape(-1, 4), dK.sq_norms(), dK.second_moment().reshape(-1, 4)))
            expected.append((P @ K.reshape(-1, 4), outer.sum(), outer.sq_norms(), outer.second_moment()))
        return found, expected

    assert_same(*both(X, K, *(normal(2, *window.outputs((5, 6)), 4) for window in windows)))


def test_one_by_one_is_linear_and_groups_are_side_by_side():
    X, K, b, dY = normal(2, 3, 4, 6), normal(1, 1, 6, 2), normal(2), normal(2, 3, 4, 2)
    of_groups = normal(3, 1, 2, 9)

    @jax.jit
    def both(X, K, b, dY, of_groups):
        Y, (dX, dK, db) = passes(rules.convolution, dY, X, K, b)
        whole = rules.convolution_forward(X, of_groups, groups=3)[0]
        pieces = zip(np.split(X, 3, -1), np.split(of_groups, 3, -1), strict=True)
        return (Y, (dX, dK[0, 0], db), whole), (
            *passes(rules.linear, dY, X, K[0, 0], b),
            jax.numpy.concatenate([rules.convolution_forward(x, k)[0] for x, k in pieces], -1),
        )

    assert_same(*both(X, K, b, dY, of_groups))


def test_same_padding_is_laxs():
    """At every remainder of the length."""
    for n, strides, size, dilation in itertools.product(range(1, 8), (1, 2, 3, 5), (1, 2, 3, 4), (1, 3)):
        pads = jax.lax.padtype_to_pads((n,), (dilation * (size - 1) + 1,), (strides,), "SAME")
        assert make_window("", (n,), size, strides, "SAME", dilation).padding == tuple(pads)


@pytest.mark.parametrize("rule", [rules.convolution, rules.transposed_convolution], ids=lambda rule: rule.__name__)
def test_an_empty_batch_and_mixed_dtypes(rule):
    """The promoted dtype forward, each argument's own in the backward pass."""
    (Y, (dX, dK, db)) = jax.jit(functools.partial(passes, rule))(
        np.ones((0, 4, 2)), np.ones((0, 4, 2)), np.ones((3, 2, 2)), np.ones(2)
    )
    assert (Y.shape, dX.shape) == ((0, 4, 2), (0, 4, 2))
    assert not np.any(dK)
    assert not np.any(db)
    for dtypes in (("bfloat16", "float32", "float32"), ("float32", "float32", "bfloat16")):
        shapes = zip([(2, 4, 2), (3, 2, 2), (2,)], dtypes, strict=True)
        arguments = [jax.ShapeDtypeStruct(*of) for of in shapes]
        Y, cotangents = jax.eval_shape(functools.partial(passes, rule), np.ones((2, 4, 2), np.float32), *arguments)
        assert Y.dtype == "float32"
        assert [d.dtype for d in cotangents] == list(dtypes)


def test_a_window_is_static():
    """Hashable and equal by value: a factor keeps it under jit."""
    one, two = (make_window("", (5, 6), 3, np.int64(2), ((1, 1), (0, 2))) for _ in range(2))
    assert one == two == Window((3, 3), (2, 2), ((1, 1), (0, 2)), (1, 1))
    assert hash(one) == hash(two)


def test_bad_input():
    X, K, refuse = np.ones((2, 5, 6, 4)), np.ones((3, 3, 4, 6)), functools.partial(refuses, rules.convolution)
    refuse("X must have shape (batch, *space, n_in), got float64 (2, 4)", X[:, 0, 0], K)
    for wrong in (K[0], K[:0]):  # of another rank, without taps
        refuse("K must have shape (*size, features, features) with a size…", X, wrong)
    refuse("K must have a floating-point dtype, got int64…", X, K.astype(int))
    refuse("K must have shape (3, 3, 4, 6) (n_in / groups, to meet X…", X, K[:, :, :3])
    refuse("K must have shape (3, 3, 2, 6) (n_in / groups, to meet X…", X, K, groups=2)
    for n in (4, 1):
        refuse(f"b must have shape (6,) to meet K (3, 3, 4, 6), got float64 ({n},)", X, K, np.ones(n))
    for groups in (3, 4):
        refuse(f"groups must divide n_in = 4 and n_out = 6, got {groups}", X, K, groups=groups)
    refuse("groups must be a positive integer, got 0", X, K, groups=0)
    space = "the window must fit in X's space with its padding"
    refuse(f"{space}, (5, 6), got (7, 3)", X, np.ones((7, 3, 4, 6)), padding="VALID")
    refuse(f"{space}, (5, 7), got (5, 9)", X, K, padding=((0, 0), (0, 1)), dilation=(2, 4))
    integer = "must be a positive integer, or one for each of 2 axes of space, got"
    for strides in (0, (1, 1, 1), 1.0):
        refuse(f"strides {integer} {strides}", X, K, strides=strides)
    refuse(f"dilation {integer} (1, True)", X, K, dilation=(1, True))
    for padding in ("FULL", ((1, 1),), 1, ((-1, 0), (0, 0))):
        refuse("padding must be 'SAME', 'VALID' or a pair of integers, 0 at least…", X, K, padding=padding)
