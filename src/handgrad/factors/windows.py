"""Where a window stands as it slides over space: the same for convolutions and pools."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError

Array = jax.Array
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """How a window slides: numbers alone, one for each axis of space, so that it is static and hashable.

    Along an axis, output i meets through tap t the element  s i + d t − p  of its input, if there is one; where there
    is none, it meets padding.

    Attributes:
      size: taps.
      strides: s, from one output to the next.
      padding: (p, elements behind the last).
      dilation: d, from one tap to the next.
      groups: of features; a pool has one.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def span(self) -> tuple[int, ...]:
        """From the first tap to the last: d (size − 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def outputs(self, space: Sequence[int]) -> tuple[int, ...]:
        """m, how many windows fit in a space of n elements with its padding."""
        axes = zip(space, self.padding, self.span, self.strides, strict=True)
        return tuple((n + sum(pair) - span) // s + 1 for n, pair, span, s in axes)

    def covered(self, outputs: Sequence[int]) -> tuple[int, ...]:
        """From the first tap of the first window to the last tap of the last one: span + s (m − 1)."""
        return tuple(span + s * (m - 1) for span, s, m in zip(self.span, self.strides, outputs, strict=True))

    def padding_back(self, space: Sequence[int]) -> Pairs:
        """The padding of the backward pass: windows slide over the outputs, dilated by s, and give n elements again.

        Element j meets the outputs with  s i + d t = j + p:  the first tap of the window turned around stands
        span − 1 − p before j. What is behind follows from n; it is below zero where a margin was met by no window.
        """
        axes = zip(space, self.outputs(space), self.padding, self.span, self.strides, strict=True)
        return tuple((span - 1 - p, n - s * (m - 1) - 1 + p) for n, m, (p, _), span, s in axes)

    def padding_met(self, space: Sequence[int]) -> Pairs:
        """The padding up to the last element that a window meets, below zero where it isn't even the last of X."""
        axes = zip(space, self.covered(self.outputs(space)), self.padding, strict=True)
        return tuple((p, covered - n - p) for n, covered, (p, _) in axes)

    def taps(self) -> Iterator[tuple[int, ...]]:
        """Where each tap stands after the window's first: d t, the last axis fastest."""
        return product(*(range(0, span, d) for span, d in zip(self.span, self.dilation, strict=True)))


def make_window(
    where: str, space: Sequence[int], size: Any, strides: Any, padding: Any, dilation: Any = 1, groups: int = 1
) -> Window:
    """The window that a rule's options name, over X's space.

    Args:
      where: the function that asks.
      space: X's shape without batch and features.
      size, strides, dilation: an integer for every axis, or one for each.
      padding: "SAME" (ceil(n / s) outputs; an odd element of padding goes behind), "VALID" (none), or a pair
        (before, behind) for each axis.
      groups: of features.
    Raises:
      InputError: a number that isn't a positive integer, or one too few or too many; a padding of another kind; a
        window larger than the padded X.
    """
    space = tuple(space)
    size, strides, dilation = (
        per_axis(where, name, value, len(space))
        for name, value in (("window", size), ("strides", strides), ("dilation", dilation))
    )
    window = Window(size, strides, ((0, 0),) * len(space), dilation, groups)
    window = Window(size, strides, _padding(where, space, window, padding), dilation, groups)
    padded = tuple(n + sum(pair) for n, pair in zip(space, window.padding, strict=True))
    if any(span > n for span, n in zip(window.span, padded, strict=True)):
        raise InputError(f"{where}: the window must fit in X's space with its padding, {padded}, got {window.span}")
    return window


def per_axis(where: str, name: str, value: Any, axes: int, least: int = 1) -> tuple[int, ...]:
    """An integer for every axis, or one for each, as a tuple; all of them `least` or more."""
    values: tuple[Any, ...] = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or not all(_is_integer(v) and v >= least for v in values):
        kind = "a positive integer" if least else "an integer, 0 at least"
        expected = f"{kind}, or one for each of {axes} axes of space"
        raise InputError(f"{where}: {name} must be {expected}, got {value!r}")
    return tuple(int(v) for v in values)


def patches(X: Array, window: Window) -> Array:
    """What each window sees: (batch, *space, n) as (batch, *outputs, taps, n), padding as 0."""
    axes = len(window.size)
    outputs = window.outputs(X.shape[1:-1])
    X = padded(X, window, 0)
    for axis in range(axes):
        starts = np.arange(outputs[axis]) * window.strides[axis]
        offsets = np.arange(window.size[axis]) * window.dilation[axis]
        X = jnp.take(X, starts[:, None] + offsets[None, :], axis=2 * axis + 1)
    # (batch, m, k, m′, k′, ..., n): outputs first, then taps.
    X = X.transpose(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return X.reshape(X.shape[0], *outputs, math.prod(window.size), X.shape[-1])


def padded(X: Array, window: Window, value: float) -> Array:
    """X with as much padding as windows meet; elements behind the last window go."""
    margins = ((0, 0), *window.padding_met(X.shape[1:-1]), (0, 0))
    return jax.lax.pad(X, jnp.asarray(value, X.dtype), [(*pair, 0) for pair in margins])


def of_tap(X: Array, window: Window, tap: Sequence[int], outputs: Sequence[int]) -> Array:
    """What each window sees through one tap of a padded X: (batch, *outputs, n)."""
    slices = (slice(t, t + s * (m - 1) + 1, s) for t, s, m in zip(tap, window.strides, outputs, strict=True))
    return X[(slice(None), *slices)]


def to_tap(dY: Array, window: Window, tap: Sequence[int], space: Sequence[int]) -> Array:
    """The transpose of `of_tap`: each output at the tap of its window, zeros elsewhere, (batch, *space, n)."""
    axes = zip(space, dY.shape[1:-1], window.padding, window.strides, tap, strict=True)
    margins = [(t - p, n - s * (m - 1) - 1 + p - t, s - 1) for n, m, (p, _), s, t in axes]
    return jax.lax.pad(dY, jnp.zeros((), dY.dtype), [(0, 0, 0), *margins, (0, 0, 0)])


def _padding(where: str, space: tuple[int, ...], window: Window, padding: Any) -> Pairs:
    if isinstance(padding, str) and padding == "VALID":
        return ((0, 0),) * len(space)
    if isinstance(padding, str) and padding == "SAME":
        axes = zip(space, window.span, window.strides, strict=True)
        totals = [max((-(-n // s) - 1) * s + span - n, 0) for n, span, s in axes]
        return tuple((total // 2, total - total // 2) for total in totals)
    pairs = tuple(map(tuple, padding)) if _is_pairs(padding) else ()
    if len(pairs) != len(space):
        expected = f"'SAME', 'VALID' or a pair of integers, 0 at least, for each of {len(space)} axes of space"
        raise InputError(f"{where}: padding must be {expected}, got {padding!r}")
    return tuple((int(before), int(behind)) for before, behind in pairs)


def _is_pairs(padding: Any) -> bool:
    return isinstance(padding, Sequence) and all(
        isinstance(pair, Sequence) and len(pair) == 2 and all(_is_integer(p) and p >= 0 for p in pair)
        for pair in padding
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
