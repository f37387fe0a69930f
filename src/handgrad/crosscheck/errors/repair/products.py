"""Values made of two others, and what gives a cotangent of a wrong shape the right one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.program import Frame, Step
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.proposal import Proposal, Visible, other

PRODUCTS = 24  # values of which products are made
FUNCTIONS = (("{}", lambda m: m), ("the conjugate of {}", np.conj))
UNREAD = 6  # values that are not read, and are tried with others


def products(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """Products of two others: element by element, one with the other's sum, and of matrices."""
    operands = visible.like(place.site, v.shape)[:PRODUCTS]
    for i, one in enumerate(operands):
        for two in operands[i:]:
            product = lambda frame, v, one=one, two=two: one.of(frame.values) * two.of(frame.values)  # noqa: E731
            words = f"{one.inside} ∘ {two.inside}"
            yield Proposal(product, f"{words} in place of {{}}", f"{words} instead", words, 2.5)
        for two in operands:
            for axis in range(v.ndim):
                if np.shape(visible.values[two.slot]) == v.shape:
                    value = lambda frame, v, one=one, two=two, axis=axis: (  # noqa: E731
                        one.of(frame.values) * np.sum(frame.values[two.slot], axis=axis, keepdims=True)
                    )
                    words = f"{one.inside} times the sum of {two.name} along axis {axis}"
                    yield Proposal(value, f"{words} in place of {{}}", f"{words} instead", words, 2.8)
    if v.ndim == 2:
        matrices = [slot for slot in visible.before(place.site) if np.ndim(visible.values[slot]) == 2][:PRODUCTS]
        for one in matrices:
            for two in matrices:
                yield from _matrix_products(place, one, two, v.shape, visible)


def sums(place: Place, step: Step, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """In place of a part of a larger value, its sum: over an axis, or over groups along one."""
    if step.name not in SELECTING:
        return
    for slot in visible.before(place.site):
        larger = np.shape(visible.values[slot])
        name = visible.operand(slot, place.site).name
        dropped = [axis for axis in range(len(larger)) if larger[axis] > 1 and _without(larger, axis) == v.shape]
        for axis in dropped:
            total = lambda frame, v, slot=slot, axis=axis: np.sum(frame.values[slot], axis=axis)  # noqa: E731
            words = f"the sum of {name} over axis {axis}"
            yield Proposal(total, f"{words} in place of {{}}", f"{words} instead", words, 1.4)
        unequal = [axis for axis, n in enumerate(larger) if len(larger) == v.ndim and n != v.shape[axis]]
        if len(unequal) == 1 and v.shape[unequal[0]] and larger[unequal[0]] % v.shape[unequal[0]] == 0:
            (axis,) = unequal
            for nearby in (True, False):
                which = "adjacent" if nearby else "interleaved"
                words = f"the sum of {name} over groups of {which} indices of axis {axis}"
                value = lambda frame, v, slot=slot, axis=axis, nearby=nearby: (  # noqa: E731
                    _grouped(frame.values[slot], v.shape[axis], axis, nearby)
                )
                yield Proposal(value, f"{words} in place of {{}}", f"{words} instead", words, 1.6 + 0.2 * (not nearby))


SELECTING = ("return", "slice", "squeeze", "gather", "dynamic_slice", "reduce_max", "split")


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _grouped(x: np.ndarray, groups: int, axis: int, nearby: bool) -> np.ndarray:
    """Its sums over `groups` groups along an axis, of neighbors or of each groups-th."""
    size = x.shape[axis] // groups
    apart = (groups, size) if nearby else (size, groups)
    return x.reshape(*x.shape[:axis], *apart, *x.shape[axis + 1 :]).sum(axis + nearby)


def unread(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """Sums and products of two others, one of which the cotangent should depend on and doesn't."""
    operands = visible.like(place.site, v.shape)
    for one in [one for one in operands if one.slot in visible.unread and one.rank <= 1][:UNREAD]:
        for two in operands[:PRODUCTS]:
            if two.slot == one.slot:
                continue
            for sign, c in (("+", 1), ("−", -1)):
                both = lambda frame, one=one, two=two, c=c: one.of(frame.values) + c * two.of(frame.values)  # noqa: E731
                words = f"({one.inside} {sign} {two.inside})"
                times = lambda frame, v, both=both: v * both(frame)  # noqa: E731
                yield Proposal(times, f"{{}} times {words}", f"a factor of {words}", f"{{}} times {words}", 2.0)
                alone = lambda frame, v, both=both: both(frame)  # noqa: E731
                yield Proposal(alone, f"{words} in place of {{}}", f"{words} instead", words, 2.2)
            product = lambda frame, v, one=one, two=two: one.of(frame.values) * two.of(frame.values)  # noqa: E731
            words = f"{one.inside} ∘ {two.inside}"
            yield Proposal(product, f"{words} in place of {{}}", f"{words} instead", words, 2.1)


def _matrix_products(place: Place, one: int, two: int, shape: tuple[int, ...], visible: Visible) -> Iterator[Proposal]:
    values, (a_name, b_name) = visible.values, [visible.inside(slot, place.site) for slot in (one, two)]
    for left in (False, True):
        for right in (False, True):
            a, b = np.shape(values[one])[:: -1 if left else 1], np.shape(values[two])[:: -1 if right else 1]
            if a[1] == b[0] and (a[0], b[1]) == shape:
                value = lambda frame, v, one=one, two=two, left=left, right=right: (  # noqa: E731
                    (frame.values[one].T if left else frame.values[one])
                    @ (frame.values[two].T if right else frame.values[two])
                )
                words = f"{a_name}{'.T' * left} @ {b_name}{'.T' * right}"
                yield Proposal(value, f"{words} in place of {{}}", f"{words} instead", words, 2.6)


def shaped(place: Place, v: np.ndarray, shape: tuple[int, ...], visible: Visible) -> Iterator[Proposal]:
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
            yield other(visible.operand(slot, place.site), 0.5)


def stretched(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """The value times another that makes it larger, or complex."""
    for slot in visible.before(place.site):
        value = visible.values[slot]
        for axes in range(max(v.ndim - np.ndim(value), 0) + 1 if np.ndim(value) else 0):
            one = visible.operand(slot, place.site, axes)
            try:
                larger = np.broadcast_shapes(v.shape, np.shape(one.of(visible.values))) != v.shape
            except ValueError:
                continue
            complex_ = (value.dtype.kind, v.dtype.kind) == ("c", "f")
            for words, function in FUNCTIONS[: 1 + complex_] if larger or complex_ else ():
                times = lambda frame, v, one=one, function=function: v * function(one.of(frame.values))  # noqa: E731
                words, cost = words.format(one.inside), 1.5 + 0.1 * one.rank
                yield Proposal(times, f"{{}} times {words}", f"a factor of {words}", "", cost)


def _reductions(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The sets of axes whose sum turns one shape into the other, kept as axes of length 1 or dropped."""
    n = len(before)
    for bits in range(1, 1 << min(n, 6)):
        axes = tuple(axis for axis in range(n) if bits >> axis & 1)
        dropped = tuple(length for axis, length in enumerate(before) if axis not in axes)
        kept = tuple(1 if axis in axes else length for axis, length in enumerate(before))
        if after in (dropped, kept):
            yield axes
