"""Convolution is a matrix product over patches and a correlation; its way back is the transposed one."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import InputError, rules
from handgrad.factors import Outer
from handgrad.factors.windows import Window, patches
from handgrad.rules.images._windows import make_window

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape))


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


OPTIONS = [
    {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1},
    {"strides": (2, 3), "padding": ((1, 0), (2, 3)), "dilation": (2, 1), "groups": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all"])
def test_one_number_at_a_time(options):
    X, K = normal(2, 5, 6, 4), normal(3, 2, 4 // options["groups"], 2)
    np.testing.assert_allclose(rules.convolution_forward(X, K, **options)[0], by_loops(X, K, **options), atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"strides": (2, 3), "padding": ((1, 0), (2, 3)), "dilation": (2, 1)}])
def test_it_is_linear_on_patches(options):
    """Y = P K, dK = Pᵀ dY: the gradient is an Outer whose left side is the patches."""
    X, K = normal(2, 5, 6, 3), normal(3, 2, 3, 4)
    window = make_window(
        "", (5, 6), (3, 2), options.get("strides", 1), options.get("padding", "SAME"), options.get("dilation", 1)
    )
    P = patches(X, window)
    P = P.reshape(*P.shape[:3], -1)
    Y, residuals = rules.convolution_forward(X, K, **options)
    np.testing.assert_allclose(Y, P @ K.reshape(-1, 4), atol=1e-13)
    dY = normal(*Y.shape)
    _, dK, _ = rules.convolution_backward(residuals, dY, **options)
    outer = Outer(P, dY)
    np.testing.assert_allclose(dK.sum().reshape(-1, 4), outer.sum(), atol=1e-12)
    np.testing.assert_allclose(dK.sq_norms(), outer.sq_norms(), rtol=1e-12)
    np.testing.assert_allclose(dK.second_moment().reshape(-1, 4), outer.second_moment(), rtol=1e-12)


def test_one_by_one_is_linear():
    X, K, b = normal(2, 3, 4, 5), normal(1, 1, 5, 2), normal(2)
    Y, residuals = rules.convolution_forward(X, K, b)
    expected, of_linear = rules.linear_forward(X, K[0, 0], b)
    np.testing.assert_allclose(Y, expected, atol=1e-13)
    dY = normal(*Y.shape)
    dX, dK, db = rules.convolution_backward(residuals, dY)
    of_x, dW, of_b = rules.linear_backward(of_linear, dY)
    for one, two in ((dX, of_x), (dK.sum()[0, 0], dW.sum()), (db.sum(), of_b.sum())):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_groups_are_convolutions_side_by_side():
    X, K = normal(2, 7, 6), normal(3, 2, 9)
    whole = rules.convolution_forward(X, K, groups=3)[0]
    parts = [rules.convolution_forward(x, k)[0] for x, k in zip(jnp.split(X, 3, -1), jnp.split(K, 3, -1), strict=True)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts, -1), atol=1e-13)


def test_the_transposed_convolution_is_the_way_back():
    """Each one's forward pass is the other's dX, number by number."""
    options = {"strides": (2, 3), "padding": ((1, 0), (1, 2)), "dilation": (1, 2), "groups": 2}
    X, K = normal(2, 6, 8, 4), normal(2, 3, 2, 6)
    Y, residuals = rules.convolution_forward(X, K, **options)
    dY = normal(*Y.shape)
    dX, dK, _ = rules.convolution_backward(residuals, dY, **options)
    more = options | {"output_padding": (1, 0)}
    back, of_back = rules.transposed_convolution_forward(dY, K, **more)
    np.testing.assert_array_equal(back, dX)
    there, dK_again, _ = rules.transposed_convolution_backward(of_back, X, **more)
    np.testing.assert_array_equal(there, Y)
    np.testing.assert_array_equal(dK.sum(), dK_again.sum())
    assert jnp.abs(jnp.vdot(dY, Y) - jnp.vdot(back, X)) < 1e-12 * jnp.vdot(Y, Y)  # ⟨dY, C X⟩ = ⟨Cᵀ dY, X⟩


def test_same_padding_is_laxs():
    """At every remainder of the length."""
    for n, strides, size, dilation in itertools.product(range(1, 8), (1, 2, 3, 5), (1, 2, 3, 4), (1, 3)):
        pads = jax.lax.padtype_to_pads((n,), (dilation * (size - 1) + 1,), (strides,), "SAME")
        assert make_window("", (n,), size, strides, "SAME", dilation).padding == tuple(pads)


@pytest.mark.parametrize(("strides", "size", "dilation"), [(1, 3, 1), (2, 1, 1), (2, 4, 1), (3, 2, 1), (3, 2, 3)])
def test_named_padding_is_laxs(strides, size, dilation):
    """JAX's own transposed convolution; its "VALID" is larger where strides are larger than the window's span."""
    X, K = normal(1, 4, 2), normal(size, 3, 2)
    layout = {"dimension_numbers": ("NWC", "WIO", "NWC"), "transpose_kernel": True, "rhs_dilation": (dilation,)}
    same, valid = (jax.lax.conv_transpose(X, K, (strides,), name, **layout) for name in ("SAME", "VALID"))
    options = {"strides": strides, "dilation": dilation}
    np.testing.assert_allclose(rules.transposed_convolution_forward(X, K, **options)[0], same, atol=1e-13)
    options |= {"padding": "VALID", "output_padding": max(strides - (dilation * (size - 1) + 1), 0)}
    np.testing.assert_allclose(rules.transposed_convolution_forward(X, K, **options)[0], valid, atol=1e-13)


@pytest.mark.parametrize("op", ["convolution", "transposed_convolution"])
def test_an_empty_batch(op):
    Y, residuals = getattr(rules, op).forward(normal(0, 4, 2), normal(3, 2, 2), normal(2))
    dX, dK, db = getattr(rules, op).backward(residuals, jnp.zeros(Y.shape))
    assert (Y.shape, dX.shape) == ((0, 4, 2), (0, 4, 2))
    assert not dK.sum().any()
    assert not db.sum().any()


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32", "float32"), ("float32", "float32", "bfloat16")])
def test_mixed_dtypes(dtypes):
    """The promoted dtype forward, each argument's own on the way back."""
    arguments = [
        normal(*shape).astype(dtype) for shape, dtype in zip([(2, 4, 2), (3, 2, 2), (2,)], dtypes, strict=True)
    ]
    Y, residuals = rules.convolution_forward(*arguments)
    assert Y.dtype == jnp.float32
    dX, dK, db = rules.convolution_backward(residuals, Y)
    assert [dX.dtype, dK.sum().dtype, db.sum().dtype] == list(dtypes)


def test_a_window_is_static():
    """Hashable and equal by value: a factor keeps it under jit."""
    one, two = (make_window("", (5, 6), 3, np.int64(2), ((1, 1), (0, 2))) for _ in range(2))
    assert one == two == Window((3, 3), (2, 2), ((1, 1), (0, 2)), (1, 1))
    assert hash(one) == hash(two)


X, K, B = np.ones((2, 5, 6, 4)), np.ones((3, 3, 4, 6)), np.ones(6)
WRONG = {
    "X without space": ((np.ones((2, 4)), K), {}, "X must have shape (batch, *space, n_in), got float64 (2, 4)"),
    "K of another rank": ((X, np.ones((3, 4, 6))), {}, "K must have shape (*size, features, features) with a size"),
    "K without taps": ((X, np.ones((0, 3, 4, 6))), {}, "K must have shape (*size, features, features) with a size"),
    "K of integers": ((X, K.astype(int)), {}, "K must have a floating-point dtype, got int64"),
    "wrong channels": ((X, np.ones((3, 3, 3, 6))), {}, "K must have shape (3, 3, 4, 6) (n_in / groups, to meet X"),
    "wrong channels of a group": ((X, K), {"groups": 2}, "K must have shape (3, 3, 2, 6) (n_in / groups, to meet X"),
    "wrong bias": ((X, K, np.ones(4)), {}, "b must have shape (6,) to meet K (3, 3, 4, 6), got float64 (4,)"),
    "a bias of one": ((X, K, np.ones(1)), {}, "b must have shape (6,) to meet K (3, 3, 4, 6), got float64 (1,)"),
    "groups and n_in": ((X, K), {"groups": 3}, "groups must divide n_in = 4 and n_out = 6, got 3"),
    "groups and n_out": ((X, K), {"groups": 4}, "groups must divide n_in = 4 and n_out = 6, got 4"),
    "no groups": ((X, K), {"groups": 0}, "groups must be a positive integer, got 0"),
    "a window too large": (
        (X, np.ones((7, 3, 4, 6))),
        {"padding": "VALID"},
        "the window must fit in X's space with its padding, (5, 6), got (7, 3)",
    ),
    "a window too large, dilated": (
        (X, K),
        {"padding": ((0, 0), (0, 1)), "dilation": (2, 4)},
        "the window must fit in X's space with its padding, (5, 7), got (5, 9)",
    ),
    "strides 0": (
        (X, K),
        {"strides": 0},
        "strides must be a positive integer, or one for each of 2 axes of space, got 0",
    ),
    "three strides": ((X, K), {"strides": (1, 1, 1)}, "strides must be a positive integer, or one for each of 2 axes"),
    "strides of floats": ((X, K), {"strides": 1.0}, "strides must be a positive integer, or one for each of 2 axes"),
    "dilation": ((X, K), {"dilation": (1, True)}, "dilation must be a positive integer, or one for each of 2 axes"),
    "padding's name": (
        (X, K),
        {"padding": "FULL"},
        "padding must be 'SAME', 'VALID' or a pair of integers, 0 at least",
    ),
    "one pair": ((X, K), {"padding": ((1, 1),)}, "padding must be 'SAME', 'VALID' or a pair of integers, 0 at least"),
    "an integer": ((X, K), {"padding": 1}, "padding must be 'SAME', 'VALID' or a pair of integers, 0 at least"),
    "negative": ((X, K), {"padding": ((-1, 0), (0, 0))}, "padding must be 'SAME', 'VALID' or a pair of integers"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), WRONG.values(), ids=WRONG)
def test_bad_input(arguments, options, message):
    with pytest.raises(InputError, match="^" + re.escape(f"convolution_forward: {message}")):
        jax.eval_shape(functools.partial(rules.convolution_forward, **options), *arguments)


BACK = np.ones((3, 3, 2, 4))  # from 4 features to 2
WRONG_TRANSPOSED = {
    "no place": (
        (np.ones((2, 0, 6, 4)), BACK),
        {},
        "X must have shape (batch, *space, n_in), got float64 (2, 0, 6, 4)",
    ),
    "wrong channels": ((X, np.ones((3, 3, 4, 6))), {}, "K must have shape (3, 3, 4, 4) (n_in last, to meet X"),
    "groups": ((X, BACK), {"groups": 3}, "groups must divide n_in = 4 and n_out = 6, got 3"),
    "wrong bias": ((X, BACK, np.ones(4)), {}, "b must have shape (2,) to meet K"),
    "output padding": (
        (X, BACK),
        {"padding": "VALID", "strides": 2, "output_padding": (0, 2)},
        "output_padding must be below the strides (2, 2), got (0, 2)",
    ),
    "same": ((X, BACK), {"strides": 2, "output_padding": 1}, "output_padding must be 0 with padding 'SAME', got 1"),
    "negative": ((X, BACK), {"output_padding": -1}, "output_padding must be an integer, 0 at least, or one for each"),
    "nothing left": (
        (X, BACK),
        {"padding": ((4, 3), (0, 0))},
        "padding must leave something of (7, 8), got ((4, 3), (0, 0))",
    ),
}


@pytest.mark.parametrize(("arguments", "options", "message"), WRONG_TRANSPOSED.values(), ids=WRONG_TRANSPOSED)
def test_bad_input_transposed(arguments, options, message):
    with pytest.raises(InputError, match="^" + re.escape(f"transposed_convolution_forward: {message}")):
        rules.transposed_convolution_forward(*arguments, **options)
