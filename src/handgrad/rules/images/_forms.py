"""The forms of a convolution and of its transpose: a matrix product, a sum of shifted products, XLA's convolution.

Which one is cheaper follows from the window and the number of features: `Window.is_pointwise`, `is_cheaper_by_shifts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import as_row
from handgrad.factors.base import accumulator
from handgrad.factors.windows import Window, features_for_xla, features_of_groups, is_cheaper_by_shifts, of_tap, padded
from handgrad.rules.images._windows import to_tap


def convolve(X: Array, K: Array, window: Window) -> Float[Array, "batch *outputs n_out"]:
    """P K, the patches of X times the kernel, without writing P out."""
    if window.is_pointwise:
        seen = of_tap(padded(X, window, 0), window, (0,) * len(window.size), window.outputs(X.shape[1:-1]))
        return _product(seen, K.reshape(K.shape[-2:]))
    return _slide(X, K, window, (1,) * len(window.size))


def convolve_back(Y: Array, K: Array, window: Window, space: tuple[int, ...]) -> Float[Array, "batch *space n_in"]:
    """The transpose of `convolve` in X.

    Again a convolution: Y with s − 1 zeros between two elements, a window that moves by 1, the kernel flipped, and
    each group's K_t transposed.
    """
    axes, groups = len(window.size), window.groups
    n_in, n_out = K.shape[-2:]
    if window.is_pointwise:
        return to_tap(_product(Y, K.reshape(n_in, n_out).T), window, (0,) * axes, space)
    transposed = K.reshape(*window.size, n_in, groups, n_out // groups).swapaxes(-1, -3)
    transposed = transposed.reshape(*window.size, n_out // groups, groups * n_in)
    if max(window.strides) > 1 and is_cheaper_by_shifts(window, n_out // groups, n_in):
        return _along(partial(_shifts_back, window=window, space=space), Y, transposed)
    back = replace(window, strides=(1,) * axes, padding=window.padding_back(space))
    return _slide(Y, jnp.flip(transposed, range(axes)), back, window.strides)


def _product(X: Array, W: Array) -> Array:
    """X W, summed in float32 at least."""
    dtype = jnp.result_type(X, W)
    return meshes.matmul(X.astype(dtype), W.astype(dtype), accumulator(dtype)).astype(dtype)


def _slide(X: Array, K: Array, window: Window, input_dilation: Sequence[int]) -> Array:
    """Σ_t x_{s i + d t − p} K_t, where X has zeros between its elements."""
    if max(input_dilation) == 1 and is_cheaper_by_shifts(window, K.shape[-2], K.shape[-1] // window.groups):
        return _along(partial(_shifts, window=window), X, K)
    return _along(partial(_convolution, window=window, input_dilation=input_dilation), X, K)


def _along(form: Callable[[Array, Array], Array], X: Array, K: Array) -> Array:
    """form(X, K) in X's and K's dtype, sharded along the batch as X and along the features as K."""
    dtype = jnp.result_type(X, K)
    of_outputs = [meshes.spec(X)[0], *(None for _ in X.shape[1:-1]), meshes.spec(K)[-1]]
    return meshes.along(of_outputs, form, X.astype(dtype), K.astype(dtype)).astype(dtype)


def _convolution(X: Array, K: Array, *, window: Window, input_dilation: Sequence[int]) -> Array:
    """XLA's, features last, summed in float32 at least."""
    axes, n_in = len(window.size), K.shape[-2]
    more, zero = features_for_xla(window, n_in, K.shape[-1]) - n_in, jnp.zeros((), X.dtype)
    if more:
        X = jax.lax.pad(X, zero, [*[(0, 0, 0)] * (axes + 1), (0, more, 0)])
        K = jax.lax.pad(K, zero, [*[(0, 0, 0)] * axes, (0, more, 0), (0, 0, 0)])
    of_images, of_kernel = (0, axes + 1, *range(1, axes + 1)), (axes + 1, axes, *range(axes))
    return jax.lax.conv_general_dilated(
        X,
        K,
        window.strides,
        window.padding,
        lhs_dilation=input_dilation,
        rhs_dilation=window.dilation,
        dimension_numbers=jax.lax.ConvDimensionNumbers(of_images, of_kernel, of_images),
        feature_group_count=window.groups,
        preferred_element_type=accumulator(X),
    )


def _shifts(X: Array, K: Array, *, window: Window) -> Array:
    """Σ_t Σ_c  X's feature c of each group, shifted to tap t, times its row of K_t: one loop, in float32 at least.

    X is copied with its padding, and so what makes X is computed once, and not again for each product.
    """
    outputs, X = window.outputs(X.shape[1:-1]), padded(X, window, 0)
    of_taps = zip(K.reshape(-1, *K.shape[-2:]), window.taps(), strict=True)
    return reduce(jnp.add, (_rows(of_tap(X, window, tap, outputs), K_t, window.groups) for K_t, tap in of_taps))


def _shifts_back(Y: Array, K: Array, *, window: Window, space: tuple[int, ...]) -> Array:
    """The same in the other direction, each product moved to the elements that its tap saw: none with the zeros of a
    dilated Y, which is not made."""
    of_taps = zip(K.reshape(-1, *K.shape[-2:]), window.taps(), strict=True)
    return reduce(jnp.add, (to_tap(_rows(Y, K_t, window.groups), window, tap, space) for K_t, tap in of_taps))


def _rows(X: Array, W: Array, groups: int) -> Array:
    """X W, group by group, as one product for each row of W."""
    dtype = accumulator(X)
    features = features_of_groups(X.astype(dtype), groups, W.shape[-1])
    return reduce(jnp.add, (x * as_row(w, X.ndim) for x, w in zip(features, W.astype(dtype), strict=True)))
