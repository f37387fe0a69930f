"""The transposed convolution is a convolution's backward pass, and PyTorch's and JAX's under their names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape))


def test_it_is_the_convolutions_backward_pass():
    """Each one's forward pass is the other's dX, number by number."""
    options = {"strides": (2, 3), "padding": ((1, 0), (1, 2)), "dilation": (1, 2), "groups": 2}
    X, K, dY = normal(2, 6, 8, 4), normal(2, 3, 2, 6), normal(2, 3, 3, 6)

    @jax.jit
    def both(X, K, dY):
        more = options | {"output_padding": (1, 0)}
        Y, residuals = rules.convolution_forward(X, K, **options)
        dX, dK, _ = rules.convolution_backward(residuals, dY, **options)
        back, of_back = rules.transposed_convolution_forward(dY, K, **more)
        there, dK_again, _ = rules.transposed_convolution_backward(of_back, X, **more)
        return (Y, dX, dK.sum()), (there, back, dK_again.sum())

    (Y, dX, dK), (there, back, dK_again) = both(X, K, dY)
    for one, other in ((Y, there), (dX, back), (dK, dK_again)):
        np.testing.assert_array_equal(one, other)
    Y, dX, dY, X = map(np.asarray, (Y, dX, dY, X))
    assert np.abs(np.vdot(dY, Y) - np.vdot(dX, X)) < 1e-12 * np.vdot(Y, Y)  # ⟨dY, C X⟩ = ⟨Cᵀ dY, X⟩


def test_named_padding_is_laxs():
    """JAX's own transposed convolution; its "VALID" is larger where strides are larger than the window's span."""
    sizes = [(1, 3, 1), (2, 1, 1), (2, 4, 1), (3, 2, 1), (3, 2, 3)]

    @jax.jit
    def both(X, kernels):
        found, expected = [], []
        for K, (strides, size, dilation) in zip(kernels, sizes, strict=True):
            layout = {"dimension_numbers": ("NWC", "WIO", "NWC"), "transpose_kernel": True, "rhs_dilation": (dilation,)}
            expected += [jax.lax.conv_transpose(X, K, (strides,), name, **layout) for name in ("SAME", "VALID")]
            options = {"strides": strides, "dilation": dilation}
            found.append(rules.transposed_convolution_forward(X, K, **options)[0])
            options |= {"padding": "VALID", "output_padding": max(strides - (dilation * (size - 1) + 1), 0)}
            found.append(rules.transposed_convolution_forward(X, K, **options)[0])
        return found, expected

    assert_same(*both(normal(1, 4, 2), [normal(size, 3, 2) for _, size, _ in sizes]))


def test_bad_input():
    X, K = np.ones((2, 5, 6, 4)), np.ones((3, 3, 2, 4))
    refuse = functools.partial(refuses, rules.transposed_convolution)
    refuse("X must have shape (batch, *space, n_in), got float64 (2, 0, 6, 4)", X[:, :0], K)
    refuse("K must have shape (3, 3, 4, 4) (n_in last, to meet X…", X, np.ones((3, 3, 4, 6)))
    refuse("groups must divide n_in = 4 and n_out = 6, got 3", X, K, groups=3)
    refuse("b must have shape (2,) to meet K…", X, K, np.ones(4))
    large = "output_padding must be below the strides (2, 2), got (0, 2)"
    refuse(large, X, K, padding="VALID", strides=2, output_padding=(0, 2))
    refuse("output_padding must be 0 with padding 'SAME', got 1", X, K, strides=2, output_padding=1)
    refuse("output_padding must be an integer, 0 at least, or one for each…", X, K, output_padding=-1)
    refuse("padding must leave something of (7, 8), got ((4, 3), (0, 0))", X, K, padding=((4, 3), (0, 0)))
