"""Pools: one number for what each window sees, feature by feature."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from handgrad.checks import InputError, check_array, check_choice, check_cotangent, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.factors.windows import FEW_TAPS, MOST_SHIFTS, Pairs, Window, of_tap, padded
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.images._windows import Padding, PerAxis, elements_seen, make_window, stated_padding, to_tap

__all__ = [
    "AveragePoolResiduals",
    "MaxPoolResiduals",
    "average_pool",
    "average_pool_backward",
    "average_pool_forward",
    "max_pool",
    "max_pool_backward",
    "max_pool_forward",
]

Shaped = Array | jax.ShapeDtypeStruct  # an X, or its shape and dtype alone


class MaxPoolResiduals(NamedTuple):
    """Where each window's maximum is, or X to search again.

    Attributes:
      X: None where positions were saved.
      position: the first tap that sees the maximum, one byte up to 256 taps; None where it is searched again.
      outline: X's shape and dtype, of no byte.
    """

    X: Float[Array, "batch *space n"] | None
    position: UInt[Array, "batch *outputs n"] | None
    outline: Float[Array, "batch 0 *space n"]


def max_pool_forward(
    X: Float[Array, "batch *space n"],
    *,
    window: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Float[Array, "batch *outputs n"], MaxPoolResiduals]:
    """y_i = max_t x_{s i + d t − p}, feature by feature; a window that sees NaN gives NaN.

    Args:
      window: taps, an integer or one for each axis of space.
      strides: s, likewise; None is the window: non-overlapping windows.
      padding: "VALID" (none), "SAME" (ceil(n / s) outputs), or a pair (before, behind) for each axis. Padding is −∞;
        a window of nothing but padding is refused.
      dilation: d, from one tap to the next.
      ceil_mode: True rounds the number of outputs up, as in PyTorch: a last window may reach beyond the padding.
      residuals: "save" keeps each maximum's position, "recompute" keeps X and searches again.
    Derivation: docs/derivations/images/pooling.md (Riesenhuber and Poggio 1999)
    """
    where = "max_pool_forward"
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    Y, position = _search(X, _pool_window(where, X, window, strides, padding, dilation, ceil_mode))
    if residuals == "save":
        return Y, MaxPoolResiduals(None, position, outline(X))
    return Y, MaxPoolResiduals(X, None, outline(X))


def max_pool_backward(
    residuals: MaxPoolResiduals,
    dY: Float[Array, "batch *outputs n"],
    *,
    window: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> tuple[Float[Array, "batch *space n"]]:
    """Pull dY back through the maximum of every window.

        dx_j = Σ dy_i    over the windows i whose maximum is x_j

    Of several equal maxima the first gets all, in the order of the elements, as in autodiff of lax.reduce_window. So
    does padding before a window of nothing but −∞: its share is lost. With NaN in a window, the share goes to the first
    maximum after the last NaN, or to that NaN where nothing follows: again as in JAX.

    Derivation: docs/derivations/images/pooling.md
    """
    where = "max_pool_backward"
    X, position, empty = check_residuals(where, residuals, MaxPoolResiduals)
    like = outlined(empty)
    slides, space = _pool_window(where, like, window, strides, padding, dilation, ceil_mode), like.shape[1:-1]
    check_cotangent(where, dY, (like.shape[0], *slides.outputs(space), like.shape[-1]), like.dtype)
    position = position if X is None else _search(X, slides)[1]
    dX = jnp.zeros(like.shape, accumulator(dY))
    for t, tap in enumerate(slides.taps()):
        dX += to_tap(jnp.where(position == t, dY, jnp.zeros_like(dY)), slides, tap, space)
    return (dX.astype(like.dtype),)


max_pool = Rule(max_pool_forward, max_pool_backward)


def _search(X: Array, window: Window) -> tuple[Float[Array, "batch *outputs n"], UInt[Array, "batch *outputs n"]]:
    """Each window's maximum, and the first tap that sees it: one tap after the other, for all windows at once. XLA
    fuses them into one loop."""
    outputs, X = window.outputs(X.shape[1:-1]), padded(X, window, -jnp.inf)
    dtype = np.min_scalar_type(math.prod(window.size) - 1)
    first, *others = window.taps()
    Y = highest = of_tap(X, window, first, outputs)
    position = jnp.zeros(Y.shape, dtype)
    for t, tap in enumerate(others, start=1):
        seen = of_tap(X, window, tap, outputs)
        stays = highest >= seen  # not where either is NaN: the search goes on behind it
        Y = jnp.where(stays | jnp.isnan(Y), Y, seen)  # which is `highest`, but NaN stays
        highest, position = jnp.where(stays, highest, seen), jnp.where(stays, position, jnp.asarray(t, dtype))
    return Y, position


class AveragePoolResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte. The mean is linear: its backward pass needs nothing else."""

    outline: Float[Array, "batch 0 *space n"]


def average_pool_forward(
    X: Float[Array, "batch *space n"],
    *,
    window: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Float[Array, "batch *outputs n"], AveragePoolResiduals]:
    """y_i = (1 / c_i) Σ_t x_{s i + d t − p}, feature by feature.

    Args:
      window, strides, padding, dilation, ceil_mode: as max_pool_forward's; padding is 0.
      count_include_pad: c_i counts taps that see an element or padding, not those beyond; False omits padding too.
    Derivation: docs/derivations/images/pooling.md (LeCun et al. 1998)
    """
    slides = _pool_window("average_pool_forward", X, window, strides, padding, dilation, ceil_mode)
    check_choice("average_pool_forward", "count_include_pad", count_include_pad, (True, False))
    total = _sums(X.astype(accumulator(X)), slides)
    return (total / _counts(slides, X, padding, count_include_pad)).astype(X.dtype), AveragePoolResiduals(outline(X))


def average_pool_backward(
    residuals: AveragePoolResiduals,
    dY: Float[Array, "batch *outputs n"],
    *,
    window: PerAxis,
    strides: PerAxis | None = None,
    padding: Padding = "VALID",
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Float[Array, "batch *space n"]]:
    """Pull dY back through the mean of every window.

        dx_j = Σ dy_i / c_i    over the windows i that see x_j

    Derivation: docs/derivations/images/pooling.md
    """
    where = "average_pool_backward"
    X = outlined(*check_residuals(where, residuals, AveragePoolResiduals))
    slides, space = _pool_window(where, X, window, strides, padding, dilation, ceil_mode), X.shape[1:-1]
    check_cotangent(where, dY, (X.shape[0], *slides.outputs(space), X.shape[-1]), X.dtype)
    shares = dY / _counts(slides, X, padding, count_include_pad)
    dX = _sums_back(shares.astype(accumulator(shares)), slides, space)
    return (dX.astype(X.dtype),)


average_pool = Rule(average_pool_forward, average_pool_backward)


def _sums(X: Array, window: Window) -> Float[Array, "batch *outputs n"]:
    """The sum of what each window sees, in one loop over the taps where that needs no copy of X with its padding: on
    CPU it is faster than lax.reduce_window."""
    space = X.shape[1:-1]
    if max(max(pair) for pair in window.padding_met(space)) > 0 or math.prod(window.size) > MOST_SHIFTS:
        return _reduce_window(X, window, window.strides, window.padding, (1,) * len(space))
    outputs, X = window.outputs(space), padded(X, window, 0)
    return reduce(jnp.add, (of_tap(X, window, tap, outputs) for tap in window.taps()))


def _sums_back(Y: Array, window: Window, space: tuple[int, ...]) -> Float[Array, "batch *space n"]:
    """The transpose of `_sums`; a few taps are moved without a copy of Y with zeros between its elements."""
    if math.prod(window.size) > FEW_TAPS:
        return _reduce_window(Y, window, (1,) * len(space), window.padding_back(space), window.strides)
    return reduce(jnp.add, (to_tap(Y, window, tap, space) for tap in window.taps()))


def _reduce_window(
    X: Array, window: Window, strides: Sequence[int], padding: Pairs, input_dilation: Sequence[int]
) -> Float[Array, "batch *outputs n"]:
    """XLA's sum of what each window sees."""
    return jax.lax.reduce_window(
        X,
        np.zeros((), X.dtype),
        jax.lax.add,
        (1, *window.size, 1),
        (1, *strides, 1),
        ((0, 0), *padding, (0, 0)),
        base_dilation=(1, *input_dilation, 1),
        window_dilation=(1, *window.dilation, 1),
    )


def _counts(slides: Window, X: Shaped, padding: Padding, count_include_pad: bool) -> Float[Array, "1 *outputs 1"]:
    """c: how many elements each mean is of."""
    space = X.shape[1:-1]
    stated = stated_padding("average_pool", space, slides, padding)
    counts = elements_seen(slides, space, stated if count_include_pad else ((0, 0),) * len(space))
    return jnp.asarray(counts[None, ..., None], accumulator(X))


def _pool_window(
    where: str,
    X: Shaped,
    window: PerAxis,
    strides: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> Window:
    """The window that a pool's options name; at each place it sees an element of X."""
    check_array(where, "X", X)
    if len(X.shape) < 3:
        raise InputError(f"{where}: X must have shape (batch, *space, n), got {describe(X)}")
    space = X.shape[1:-1]
    strides = window if strides is None else strides
    slides = make_window(where, space, window, strides, padding, dilation, ceil_mode=ceil_mode)
    if (elements_seen(slides, space, ((0, 0),) * len(space)) == 0).any():
        raise InputError(f"{where}: padding must leave each window an element of X, got {slides.padding} for {space}")
    return slides
