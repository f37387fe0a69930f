"""Values made of two others, and what gives a cotangent of a wrong shape the right one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.program import Frame
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.proposal import Proposal, Visible, other

PRODUCTS = 24  # values of which products are made


def products(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """Products of two others: element by element, one with the other's sum, and of matrices."""
    slots = visible.like(place.site, v.shape)[:PRODUCTS]
    names, values = visible.names, visible.values
    for i, one in enumerate(slots):
        for two in slots[i:]:
            product = lambda frame, v, one=one, two=two: frame.values[one] * frame.values[two]  # noqa: E731
            words = f"{names.inside(one)} ∘ {names.inside(two)}"
            yield Proposal(product, f"{words} in place of {{}}", f"{words} instead", words, 2.5)
        for two in slots:
            for axis in range(v.ndim):
                if np.shape(values[two]) == v.shape:
                    value = lambda frame, v, one=one, two=two, axis=axis: (  # noqa: E731
                        frame.values[one] * np.sum(frame.values[two], axis=axis, keepdims=True)
                    )
                    words = f"{names.inside(one)} times the sum of {names[two]} along axis {axis}"
                    yield Proposal(value, f"{words} in place of {{}}", f"{words} instead", words, 2.8)
    if v.ndim == 2:
        matrices = [slot for slot in visible.before(place.site) if np.ndim(values[slot]) == 2][:PRODUCTS]
        for one in matrices:
            for two in matrices:
                yield from _matrix_products(one, two, v.shape, visible)


def _matrix_products(one: int, two: int, shape: tuple[int, ...], visible: Visible) -> Iterator[Proposal]:
    names, values = visible.names, visible.values
    for left in (False, True):
        for right in (False, True):
            a, b = np.shape(values[one])[:: -1 if left else 1], np.shape(values[two])[:: -1 if right else 1]
            if a[1] == b[0] and (a[0], b[1]) == shape:
                value = lambda frame, v, one=one, two=two, left=left, right=right: (  # noqa: E731
                    (frame.values[one].T if left else frame.values[one])
                    @ (frame.values[two].T if right else frame.values[two])
                )
                words = f"{names.inside(one)}{'.T' * left} @ {names.inside(two)}{'.T' * right}"
                yield Proposal(value, f"{words} in place of {{}}", f"{words} instead", words, 2.6)


def shaped(v: np.ndarray, shape: tuple[int, ...], visible: Visible) -> Iterator[Proposal]:
    """What gives a cotangent of a wrong shape the right one."""
    if v.shape[::-1] == shape and v.ndim == 2:
        yield Proposal(lambda frame, v: np.swapaxes(v, 0, 1), "{} transposed", "its transpose", "{} transposed", 1.0)
    for axes in _reductions(v.shape, shape):
        target = len(shape)
        words = f"summed over axis {axes[0]}" if len(axes) == 1 else f"summed over axes {', '.join(map(str, axes))}"

        def value(frame: Frame, v: Any, axes: tuple[int, ...] = axes, target: int = target) -> Any:
            y = np.sum(v, axis=axes, keepdims=True)
            return y.reshape([n for i, n in enumerate(y.shape) if i not in axes]) if y.ndim != target else y

        yield Proposal(value, f"{{}} {words}", f"a sum over axis {axes[0]}", "", 1.0)
        mean = lambda frame, v, axes=axes, value=value: (  # noqa: E731
            value(frame, v) / np.prod([v.shape[axis] for axis in axes])
        )
        yield Proposal(mean, f"{{}} {words.replace('summed', 'averaged')}", f"a mean over axis {axes[0]}", "", 1.2)
    for slot in visible.before(1 << 30):
        if np.shape(visible.values[slot]) == shape and visible.values[slot].dtype == v.dtype:
            yield other(slot, visible.names[slot], 0.5)


def _reductions(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The sets of axes whose sum turns one shape into the other, kept as axes of length 1 or dropped."""
    n = len(before)
    for bits in range(1, 1 << min(n, 6)):
        axes = tuple(axis for axis in range(n) if bits >> axis & 1)
        dropped = tuple(length for axis, length in enumerate(before) if axis not in axes)
        kept = tuple(1 if axis in axes else length for axis, length in enumerate(before))
        if after in (dropped, kept):
            yield axes
