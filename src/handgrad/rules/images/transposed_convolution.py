"""Transposed convolution: a convolution's backward pass as a forward pass."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import (
    InputError,
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
from handgrad.rules.images._windows import Padding, PerAxis, make_window, per_axis
from handgrad.rules.images.convolution import add_bias, check_groups, check_kernel

__all__ = [
    "TransposedConvolutionResiduals",
    "transposed_convolution",
    "transposed_convolution_backward",
    "transposed_convolution_forward",
]


class TransposedConvolutionResiduals(NamedTuple):
    """The arguments, by reference: X is one side of dK, K makes dX, and b says whether there is a db."""

    X: Float[Array, "batch *outputs n_in"]
    K: Float[Array, "*size n_out/groups n_in"]
    b: Float[Array, " n_out"] | None


def transposed_convolution_forward(
    X: Float[Array, "batch *outputs n_in"],
    K: Float[Array, "*size n_out_of_group n_in"],
    b: Float[Array, " n_out_of_group*{groups}"] | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
    output_padding: PerAxis = 0,
) -> tuple[Float[Array, "batch *space n_out"], TransposedConvolutionResiduals]:
    """y_j = Σ_{s i + d t = j + p} x_i K_tᵀ + b: each element of X adds its window's worth of kernel to Y.

    It is the transpose of the convolution that takes Y's shape to X's with this kernel and these options. "SAME" makes
    m s elements of m, "VALID" (m − 1) s + span, where span = d (size − 1) + 1; a pair of padding is cut off from that.

    Args:
      X: in the shape of the convolution's output.
      strides, padding, dilation, groups: the convolution's.
      output_padding: more elements at Y's end, below s. With s > 1 several spaces have m windows; without it, Y's is
        the smallest, with "SAME" the largest, to which nothing can be added.
    Derivation: docs/derivations/images/transposed_convolution.md (Zeiler et al. 2010)
    """
    where = "transposed_convolution_forward"
    check_array(where, "X", X)
    window, space = _geometry(where, X, K, strides, padding, dilation, groups, output_padding)
    n_out = K.shape[-2] * groups
    check_groups(where, groups, X.shape[-1], n_out)
    check_shape(where, "K", K, (*K.shape[:-1], X.shape[-1]), f"(n_in last, to meet X {tuple(X.shape)})")
    Y = add_bias(where, convolve_back(X, K, window, space), b, K)
    return Y, TransposedConvolutionResiduals(X, K, b)


def transposed_convolution_backward(
    residuals: TransposedConvolutionResiduals,
    dY: Float[Array, "batch *space n_out"],
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
    output_padding: PerAxis = 0,
) -> tuple[Float[Array, "batch *outputs n_in"], Correlation, Total | None]:
    """Pull dY back through the transpose of a convolution: by that convolution itself.

        dx_i = Σ_t dy_{s i + d t − p} K_t      dK_t = Σ_i dy_{s i + d t − p}ᵀ x_i      db = dYᵀ 1

    In dK, the window slides over dY, and X takes the place of a convolution's dY.

    Derivation: docs/derivations/images/transposed_convolution.md
    """
    where = "transposed_convolution_backward"
    X, K, b = check_residuals(where, residuals, TransposedConvolutionResiduals)
    window, space = _geometry(where, X, K, strides, padding, dilation, groups, output_padding)
    dtype = jnp.result_type(X, K) if b is None else jnp.result_type(X, K, b)
    check_cotangent(where, dY, (X.shape[0], *space, K.shape[-2] * groups), dtype)
    dX = convolve(dY, K, window).astype(X.dtype)
    return dX, Correlation(dY, X, window, K.dtype), None if b is None else Total(dY, b.dtype)


transposed_convolution = Rule(transposed_convolution_forward, transposed_convolution_backward)


def _geometry(
    where: str,
    X: Array,
    K: Array,
    strides: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    output_padding: PerAxis,
) -> tuple[Window, tuple[int, ...]]:
    """The window of the convolution whose transpose this is, and the space that it slides over."""
    if len(X.shape) < 3 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n_in), got {describe(X)}")
    check_kernel(where, X, K)
    check_count(where, "groups", groups)
    outputs, axes = X.shape[1:-1], len(X.shape) - 2
    strides, dilation = per_axis(where, "strides", strides, axes), per_axis(where, "dilation", dilation, axes)
    more = per_axis(where, "output_padding", output_padding, axes, least=0)
    same = isinstance(padding, str) and padding == "SAME"
    if any(extra >= (1 if same else s) for extra, s in zip(more, strides, strict=True)):
        most = "0 with padding 'SAME'" if same else f"below the strides {strides}"
        raise InputError(f"{where}: output_padding must be {most}, got {output_padding!r}")
    if same:
        space = tuple(m * s for m, s in zip(outputs, strides, strict=True))
        return make_window(where, space, K.shape[:-2], strides, padding, dilation, groups), space
    # What all windows cover, as if there were no margins to cut off.
    open_window = Window(K.shape[:-2], strides, ((0, 0),) * axes, dilation, groups)
    covered = open_window.covered(outputs)
    window = make_window(where, covered, K.shape[:-2], strides, padding, dilation, groups)
    sizes = zip(covered, window.padding, more, strict=True)
    space = tuple(n - sum(pair) + extra for n, pair, extra in sizes)
    if any(n < 1 for n in space):
        raise InputError(f"{where}: padding must leave something of {covered}, got {padding!r}")
    return window, space
