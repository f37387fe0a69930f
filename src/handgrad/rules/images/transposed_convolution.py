"""Transposed convolution: a convolution's way back, taken as the way forward."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
from handgrad.factors.windows import Window, make_window, per_axis
from handgrad.rules.images.convolution import add_bias, check_groups, check_kernel, convolve, convolve_back
from handgrad.rules.rule import Rule

__all__ = [
    "TransposedConvolutionResiduals",
    "transposed_convolution",
    "transposed_convolution_backward",
    "transposed_convolution_forward",
]

Array = jax.Array


class TransposedConvolutionResiduals(NamedTuple):
    """The operation's own arguments: references, no copies.

    Attributes:
      X: (batch, *outputs, n_in) input, one side of dK.
      K: (*size, n_out / groups, n_in) kernel, for dX.
      b: (n_out,) bias or None; it says whether there is a db, and in which dtype.
    """

    X: Array
    K: Array
    b: Array | None


def transposed_convolution_forward(
    X: Array,
    K: Array,
    b: Array | None = None,
    *,
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
) -> tuple[Array, TransposedConvolutionResiduals]:
    """y_j = Σ_{s i + d t = j + p} x_i K_tᵀ + b: each element of X lays its window's worth of kernel onto Y.

    It is the transpose of the convolution that takes Y's shape to X's with this kernel and these options: as that
    one's dX is linear in its dY, so is Y in X here. "SAME" makes m elements m s, "VALID" makes them (m − 1) s + span,
    where span = d (size − 1) + 1; a pair of padding cuts its margins off from that.

    Args:
      X: (batch, *outputs, n_in) floating point: the shape of the convolution's output.
      K: (*size, n_out / groups, n_in): the convolution's kernel.
      b: (n_out,), or None for no bias.
      strides, padding, dilation, groups: the convolution's.
      output_padding: more elements at Y's end, below s. With s > 1 several spaces have m windows; without it, Y's is
        the smallest, with "SAME" the largest, to which nothing can be added.
    Returns:
      Y (batch, *space, n_out) in the promoted dtype of X, K and b; residuals.
    Raises:
      InputError: a wrong rank, number of features or dtype; groups that don't divide n_in and n_out; padding that
        leaves nothing; an option of another kind.
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
    dY: Array,
    *,
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
) -> tuple[Array, Correlation, Total | None]:
    """Pull dY back through a convolution's way back: by that convolution itself.

        dx_i = Σ_t dy_{s i + d t − p} K_t      dK_t = Σ_i dy_{s i + d t − p}ᵀ x_i      db = dYᵀ 1

    In dK, dY is what the window slides over and X stands where a convolution's dY would.

    Args:
      residuals: TransposedConvolutionResiduals of transposed_convolution_forward.
      dY: (batch, *space, n_out) cotangent of Y.
      strides, padding, dilation, groups, output_padding: the forward's.
    Returns:
      dX (batch, *outputs, n_in); dK: Correlation, (*size, n_out / groups, n_in); db: Total, (n_out,), or None where
      there was no bias.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
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
    where: str, X: Any, K: Any, strides: Any, padding: Any, dilation: Any, groups: Any, output_padding: Any
) -> tuple[Window, tuple[int, ...]]:
    """The window of the convolution whose way back this is, and the space that it slides over."""
    if len(X.shape) < 3 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n_in), got {describe(X)}")
    check_kernel(where, "X", X, K)
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
