"""What the rules of images share: options as windows, and a window's transpose, tap by tap."""

from collections.abc import Sequence
from typing import Literal, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_flags
from handgrad.factors.windows import Pairs, Window

PerAxis = int | Sequence[int]
Padding = Literal["SAME", "VALID"] | Sequence[tuple[int, int]]


def make_window(
    where: str,
    space: Sequence[int],
    size: PerAxis,
    strides: PerAxis,
    padding: Padding,
    dilation: PerAxis = 1,
    groups: int = 1,
    ceil_mode: bool = False,
) -> Window:
    """The window that a rule's options name, over X's space.

    Args:
      where: the function that checks, for its errors.
      space: X's shape without batch and features.
      size, strides, dilation: an integer for every axis, or one for each.
      padding: "SAME" (ceil(n / s) outputs; an odd element of padding goes behind), "VALID" (none), or a pair
        (before, behind) for each axis.
      groups: of features.
      ceil_mode: whether a last window may reach beyond the padding; it begins before X's end.
    """
    space = tuple(space)
    check_flags(where, ceil_mode=ceil_mode)
    size, strides, dilation = (
        per_axis(where, name, value, len(space))
        for name, value in (("window", size), ("strides", strides), ("dilation", dilation))
    )
    window = Window(size, strides, ((0, 0),) * len(space), dilation, groups)
    pairs = stated_padding(where, space, window, padding)
    window = Window(size, strides, _to_the_end(space, window, pairs) if ceil_mode else pairs, dilation, groups)
    padded = tuple(n + sum(pair) for n, pair in zip(space, window.padding, strict=True))
    if any(span > n for span, n in zip(window.span, padded, strict=True)):
        raise InputError(f"{where}: the window must fit in X's space with its padding, {padded}, got {window.span}")
    return window


def per_axis(where: str, name: str, value: PerAxis, axes: int, least: int = 1) -> tuple[int, ...]:
    """An integer for every axis, or one for each, as a tuple; all of them `least` or more."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or not all(is_integer(v) and v >= least for v in values):
        kind = "a positive integer" if least else "an integer, 0 at least"
        expected = f"{kind}, or one for each of {axes} axes of space"
        raise InputError(f"{where}: {name} must be {expected}, got {value!r}")
    return tuple(int(v) for v in values)


def to_tap(
    dY: Float[Array, "batch *outputs n"], window: Window, tap: Sequence[int], space: Sequence[int]
) -> Float[Array, "batch *space n"]:
    """The transpose of `of_tap`: each output at the tap of its window, zeros elsewhere."""
    axes = zip(space, dY.shape[1:-1], window.padding, window.strides, tap, strict=True)
    margins = [(t - p, n - s * (m - 1) - 1 + p - t, s - 1) for n, m, (p, _), s, t in axes]
    return jax.lax.pad(dY, jnp.zeros((), dY.dtype), [(0, 0, 0), *margins, (0, 0, 0)])


def elements_seen(window: Window, space: Sequence[int], margins: Pairs) -> np.ndarray:
    """(*outputs,) how many taps of each window see an element of X, or of these margins: a product over the axes."""
    seen = np.ones((), int)
    axes = (space, window.outputs(space), window.size, window.strides, window.padding, window.dilation, margins)
    for n, m, size, s, (p, _), d, (before, behind) in zip(*axes, strict=True):
        elements = s * np.arange(m)[:, None] + d * np.arange(size)[None, :] - p
        seen = np.multiply.outer(seen, np.sum((elements >= -before) & (elements < n + behind), axis=1))
    return seen


def _to_the_end(space: tuple[int, ...], window: Window, padding: Pairs) -> Pairs:
    """Padding with as much behind as one more window meets, where elements or padding would be left over."""
    wider = list[tuple[int, int]]()
    for n, span, s, (before, behind) in zip(space, window.span, window.strides, padding, strict=True):
        m = -(-(n + before + behind - span) // s) + 1
        m -= (m - 1) * s >= n + before
        wider.append((before, max(behind, s * (m - 1) + span - n - before)))
    return tuple(wider)


def stated_padding(where: str, space: Sequence[int], window: Window, padding: Padding) -> Pairs:
    """Padding before and behind, for each axis."""
    if isinstance(padding, str) and padding == "VALID":
        return ((0, 0),) * len(space)
    if isinstance(padding, str) and padding == "SAME":
        axes = zip(space, window.span, window.strides, strict=True)
        totals = [max((-(-n // s) - 1) * s + span - n, 0) for n, span, s in axes]
        return tuple((total // 2, total - total // 2) for total in totals)
    pairs = tuple(map(tuple, padding)) if is_pairs(padding) else ()
    if len(pairs) != len(space):
        expected = f"'SAME', 'VALID' or a pair of integers, 0 at least, for each of {len(space)} axes of space"
        raise InputError(f"{where}: padding must be {expected}, got {padding!r}")
    return tuple((int(before), int(behind)) for before, behind in pairs)


def is_pairs(padding: object) -> TypeGuard[Sequence[tuple[int, int]]]:
    """Whether `padding` is pairs of integers, 0 at least."""
    return isinstance(padding, Sequence) and all(
        isinstance(pair, Sequence) and len(pair) == 2 and all(is_integer(p) and p >= 0 for p in pair)
        for pair in padding
    )


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is a number that counts: an integer of Python or NumPy, no boolean."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
