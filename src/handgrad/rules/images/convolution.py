"""Convolution: the same few weights under every window of space."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_cotangent,
    check_count,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import Correlation, Total
from handgrad.factors.windows import Window
from handgrad.rule import Rule
from handgrad.rules.images._forms import convolve, convolve_back
from handgrad.rules.images._windows import Padding, PerAxis, make_window

__all__ = ["ConvolutionResiduals", "convolution", "convolution_backward", "convolution_forward"]


class ConvolutionResiduals(NamedTuple):
    """The arguments, by reference: X is one side of dK, K makes dX, and b says whether there is a db."""

    X: Float[Array, "batch *space n_in"]
    K: Float[Array, "*size n_in/groups n_out"]
    b: Float[Array, " n_out"] | None


def convolution_forward(
    X: Float[Array, "batch *space n_in"],
    K: Float[Array, "*size n_in//{groups} n_out"],
    b: Float[Array, " n_out"] | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
) -> tuple[Float[Array, "batch *outputs n_out"], ConvolutionResiduals]:
    """y_i = Σ_t x_{s i + d t − p} K_t + b: at each output, what its window sees times the kernel.

    In matrix form Y = P K + 1 bᵀ, where row i of P is the patch that output i sees (im2col; P is never written out).
    As everywhere in the field the kernel is not flipped: a mathematician calls this a cross-correlation. Elements
    beyond X's margins are 0.

    Args:
      X: one, two, three … axes of space.
      strides: s, an integer or one for each axis of space.
      padding: "SAME" (ceil(n / s) outputs), "VALID" (none), or a pair (before, behind) for each axis.
      dilation: d, as strides.
      groups: the first n_out / groups outputs read the first n_in / groups inputs alone, and so on; n_in groups make
        a depthwise convolution.
    Derivation: docs/derivations/images/convolution.md (LeCun et al. 1998; Yu and Koltun 2016 for dilation)
    """
    where = "convolution_forward"
    check_array(where, "X", X)
    window = kernel_window(where, X, K, strides, padding, dilation, groups)
    check_groups(where, groups, X.shape[-1], K.shape[-1])
    n_in = f"(n_in / groups, to meet X {tuple(X.shape)})"
    check_shape(where, "K", K, (*window.size, X.shape[-1] // groups, K.shape[-1]), n_in)
    Y = add_bias(where, convolve(X, K, window), b, K)
    return Y, ConvolutionResiduals(X, K, b)


def convolution_backward(
    residuals: ConvolutionResiduals,
    dY: Float[Array, "batch *outputs n_out"],
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
) -> tuple[Float[Array, "batch *space n_in"], Correlation, Total | None]:
    """Pull dY back through Y = P K + 1 bᵀ.

        dx_j = Σ_{s i + d t = j + p} dy_i K_tᵀ      dK_t = Σ_i x_{s i + d t − p}ᵀ dy_i      db = dYᵀ 1

    dX is dY, dilated by s, under the flipped kernel; dK is X ⋆ dY, what linear's Xᵀ dY becomes.

    Derivation: docs/derivations/images/convolution.md
    """
    where = "convolution_backward"
    X, K, b = check_residuals(where, residuals, ConvolutionResiduals)
    window = kernel_window(where, X, K, strides, padding, dilation, groups)
    space = X.shape[1:-1]
    dtype = jnp.result_type(X, K) if b is None else jnp.result_type(X, K, b)
    check_cotangent(where, dY, (X.shape[0], *window.outputs(space), K.shape[-1]), dtype)
    dX = convolve_back(dY, K, window, space).astype(X.dtype)
    return dX, Correlation(X, dY, window, K.dtype), None if b is None else Total(dY, b.dtype)


convolution = Rule(convolution_forward, convolution_backward)


def kernel_window(
    where: str, X: Array, K: Array, strides: PerAxis, padding: Padding, dilation: PerAxis, groups: int
) -> Window:
    """The window of a kernel over X (batch, *space, n)."""
    if len(X.shape) < 3:
        raise InputError(f"{where}: X must have shape (batch, *space, n_in), got {describe(X)}")
    check_kernel(where, X, K)
    check_count(where, "groups", groups)
    return make_window(where, X.shape[1:-1], K.shape[:-2], strides, padding, dilation, groups)


def check_kernel(where: str, X: Array, K: Array) -> None:
    """K has a tap at least along each of X's axes of space."""
    check_array(where, "K", K)
    if len(K.shape) != len(X.shape) or 0 in K.shape:
        expected = f"(*size, features, features) with a size for each axis of X's space {tuple(X.shape[1:-1])}"
        raise InputError(f"{where}: K must have shape {expected}, got {describe(K)}")


def check_groups(where: str, groups: int, n_in: int, n_out: int) -> None:
    """Every group has as many features of each kind."""
    if n_in % groups or n_out % groups:
        raise InputError(f"{where}: groups must divide n_in = {n_in} and n_out = {n_out}, got {groups}")


def add_bias(where: str, Y: Array, b: Array | None, K: Array) -> Array:
    """Y + 1 bᵀ, b having one number for each feature of Y."""
    if b is None:
        return Y
    check_array(where, "b", b)
    check_shape(where, "b", b, Y.shape[-1:], f"to meet K {tuple(K.shape)}")
    return Y + as_row(b, Y.ndim)
