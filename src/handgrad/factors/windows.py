"""Where a window stands as it slides over space, and what it sees: the patches of im2col."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pairs = tuple[tuple[int, int], ...]

MOST_SHIFTS = 100  # as many products in one loop compile in about half a second
MOST_DENSE_SHIFTS = 32  # in a network more than that, fused with what is around, compile and run for longer than XLA's
_WHOLE = ContextVar("whole", default=False)
FEW_TAPS = 9  # where each is moved, XLA on CPU tests every element of every one: of more, that takes longer than a copy


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

    @property
    def is_pointwise(self) -> bool:
        """Whether each output sees one element, and all of its features: a matrix product."""
        return math.prod(self.size) == 1 and self.groups == 1

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


@contextmanager
def whole_convolutions() -> Iterator[None]:
    """Inside, what is traced has every convolution as one operation, so that its FLOPs can be counted."""
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)


def is_cheaper_by_shifts(window: Window, n_in: int, n_out: int) -> bool:
    """Whether Σ_t Σ_c of X's feature c, shifted to tap t, times its row of K is cheaper than XLA's convolution.

    The sum is one loop of elementwise products, and XLA on CPU has no fast convolution of groups, nor one of a few
    features to at most 16: there it takes as long as for 16. The bounds were measured on CPU alone.

    Args:
      n_in, n_out: features of one group.
    """
    shifts = math.prod(window.size) * n_in
    if _WHOLE.get():
        return False
    if window.groups > 1:
        return n_in <= 8 and shifts <= MOST_SHIFTS
    return n_out <= 16 and shifts <= MOST_DENSE_SHIFTS


def features_for_xla(window: Window, n_in: int, n_out: int) -> int:
    """With how many input features XLA's convolution is cheapest, those beyond n_in being 0: on CPU it is slow
    from 3, 5, 7 or 9 features to 17 … 32, as in a first layer over RGB."""
    slow = not _WHOLE.get() and window.groups == 1 and n_in in (3, 5, 7, 9) and 16 < n_out <= 32
    return -(-n_in // 4) * 4 if slow else n_in


def features_of_groups(
    X: Float[Array, "*tokens n"], groups: int, n_out: int
) -> Iterator[Float[Array, "*tokens {n_out}"]]:
    """Feature 0 of each group, feature 1, ..., each repeated for all outputs of its group."""
    n_in, times = X.shape[-1] // groups, n_out // groups
    for i in range(n_in):
        feature = X[..., i::n_in]
        yield feature if times == 1 else jnp.repeat(feature, times, axis=-1)


def patches(X: Float[Array, "batch *space n"], window: Window) -> Float[Array, "batch *outputs taps n"]:
    """What each window sees (im2col), padding as 0."""
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


def padded(X: Float[Array, "batch *space n"], window: Window, value: float) -> Float[Array, "batch *padded n"]:
    """X with as much padding as windows meet; elements behind the last window go."""
    margins = ((0, 0), *window.padding_met(X.shape[1:-1]), (0, 0))
    return jax.lax.pad(X, jnp.asarray(value, X.dtype), [(*pair, 0) for pair in margins])


def of_tap(
    X: Float[Array, "batch *padded n"], window: Window, tap: Sequence[int], outputs: Sequence[int]
) -> Float[Array, "batch *outputs n"]:
    """What each window sees through one tap of a padded X."""
    return X[(slice(None), *at_tap(window, tap, outputs))]


def at_tap(window: Window, tap: Sequence[int], outputs: Sequence[int]) -> tuple[slice, ...]:
    """The elements of a padded space that windows see through one tap."""
    axes = zip(tap, window.strides, outputs, strict=True)
    return tuple(slice(t, t + s * (m - 1) + 1, s) for t, s, m in axes)
