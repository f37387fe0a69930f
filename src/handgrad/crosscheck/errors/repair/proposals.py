"""What may stand in place of a value, or be added to it: its own elements moved, other values, their products."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.program import Step
from handgrad.crosscheck.errors.repair.factors import FUNCTIONS
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.products import products, sums, unread
from handgrad.crosscheck.errors.repair.proposal import Operand, Proposal, Visible, other


def proposals(place: Place, step: Step, v: np.ndarray, visible: Visible, tier: int) -> Iterator[Proposal]:
    """What may stand at a place, the simplest in tier 0."""
    if tier == 0:
        yield Proposal(lambda frame, v: v, "{}", "", "{}", 0.7)
        yield from moved(v)
        yield from sums(place, step, v, visible)
        yield Proposal(lambda frame, v: np.ones_like(v), "", "", "1", 1.2)
        for one in visible.like(place.site, v.shape):
            if one.slot != place.slot and not np.array_equal(one.of(visible.values), v):
                # The same name for another value: a line that runs twice, as of a helper, and says nothing.
                again = visible.names[one.slot] == visible.names[place.slot]
                yield other(one, 0.2 * one.rank + visible.distance(step, one.slot) + again)
        yield from _times_functions(place, step, v, visible, slice(1))
    elif tier == 1:
        yield from _reduced(place, v, visible)
        yield from _times_functions(place, step, v, visible, slice(1, None))
    else:
        yield from unread(place, v, visible)
        if step.name == "return":
            yield from products(place, v, visible)


def moved(v: np.ndarray) -> Iterator[Proposal]:
    """The value's own elements, elsewhere or summed."""
    if v.dtype.kind == "c":
        yield Proposal(lambda frame, v: np.conj(v), "the conjugate of {}", "its conjugate", "the conjugate of {}", 1.0)
        yield Proposal(lambda frame, v: 1j * v, "{} times i", "a factor of i", "i {}", 1.2)
        yield Proposal(lambda frame, v: np.real(v) + 0j, "the real part of {}", "its real part", "its real part", 1.2)
    for axis, n in enumerate(v.shape[:-1]):
        if n == v.shape[axis + 1] and n > 1:
            which = "" if v.ndim == 2 else f" (axes {axis} and {axis + 1})"
            swap = lambda frame, v, axis=axis: np.swapaxes(v, axis, axis + 1)  # noqa: E731
            yield Proposal(swap, f"{{}} transposed{which}", f"its transpose{which}", "{} transposed", 1.0)
    for axis, n in enumerate(v.shape):
        if n > 1:
            along = "" if v.ndim == 1 else f" along axis {axis}"
            yield _elementwise(lambda v, axis=axis: np.flip(v, axis), f"reversed{along}", 1.6)
            for by in (1, -1):
                words = f"rolled by {by}{along}".replace("-", "−")
                yield _elementwise(lambda v, axis=axis, by=by: np.roll(v, by, axis), words, 1.6)
            yield _elementwise(lambda v, axis=axis: np.cumsum(v, axis), f"summed cumulatively{along}", 1.7)
            yield _elementwise(
                lambda v, axis=axis: np.flip(np.cumsum(np.flip(v, axis), axis), axis),
                f"summed cumulatively from the end{along}",
                1.7,
            )


def _elementwise(function: Callable[[Any], Any], words: str, cost: float) -> Proposal:
    return Proposal(lambda frame, v: function(v), f"{{}} {words}", f"its result {words}", f"{{}} {words}", cost)


def _reduced(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """Sums along one axis, of the value itself and of others of its shape."""
    operands = [one for one in visible.like(place.site, v.shape) if np.shape(visible.values[one.slot]) == v.shape]
    for one in (None, *(one for one in operands if one.slot != place.slot)):
        name = "{}" if one is None else one.name
        of = lambda frame, v, one=one: v if one is None else one.of(frame.values)  # noqa: E731
        for axis, n in enumerate(v.shape):
            if n > 1:
                along = "" if v.ndim == 1 else f" along axis {axis}"
                value = lambda frame, v, of=of, axis=axis: np.sum(of(frame, v), axis=axis, keepdims=True)  # noqa: E731
                mean = lambda frame, v, of=of, axis=axis: np.mean(of(frame, v), axis=axis, keepdims=True)  # noqa: E731
                for which, reduced in (("sum", value), ("mean", mean)):
                    words = f"the {which} of {name}{along}"
                    yield Proposal(reduced, f"{words} in place of {{}}", f"{words} instead", words, 2.0)
                if one is not None:
                    yield from _projections(one, axis, along)


def _projections(one: Operand, axis: int, along: str) -> Iterator[Proposal]:
    """The sum of the value times another, alone and times that other again: what a normalization takes away."""
    for which, function in (("sum", np.sum), ("mean", np.mean)):
        inner = lambda frame, v, function=function: function(v * one.of(frame.values), axis=axis, keepdims=True)  # noqa: E731
        words = f"the {which} of {{}} times {one.name}{along}"
        yield Proposal(inner, "", "", words, 2.2)
        outer = lambda frame, v, inner=inner: one.of(frame.values) * inner(frame, v)  # noqa: E731
        yield Proposal(outer, "", "", f"{one.name} times {words}", 2.4)


def _times_functions(place: Place, step: Step, v: np.ndarray, visible: Visible, functions: slice) -> Iterator[Proposal]:
    """The value times a simple function of another, and that function alone."""
    for one in visible.like(place.site, v.shape):
        boolean = visible.values[one.slot].dtype.kind == "b"
        own = one.slot == place.slot or np.array_equal(one.of(visible.values), v)
        name = visible.inside(place.slot, place.site) if own else one.inside
        for i, (template, function) in list(enumerate(FUNCTIONS[:2] if boolean else FUNCTIONS))[functions]:
            words = template.replace("{}", name)
            f = lambda frame, function=function, one=one: function(_numbers(one.of(frame.values)))  # noqa: E731
            times = lambda frame, v, f=f: v * f(frame)  # noqa: E731
            cost = 1.5 + 0.1 * one.rank + 0.03 * i + (0.1 if i else 0) - 0.3 * own
            cost += visible.distance(step, one.slot)
            if own and template in ("{}", "{}²"):
                power = f"{name}{'²' if template == '{}' else '³'}"
                yield Proposal(times, f"{power} in place of {name}", f"{power} in place of {name}", power, cost)
            else:
                yield Proposal(times, f"{{}} times {words}", f"a factor of {words}", f"{{}} times {words}", cost)
            if i and not boolean:
                alone = lambda frame, v, f=f: f(frame)  # noqa: E731
                yield Proposal(alone, f"{words} in place of {{}}", f"{words} instead", words, cost + 0.4)


def _numbers(m: Any) -> Any:
    return m.astype(np.float64) if m.dtype.kind == "b" else m
