"""What may stand in place of a value, or be added to it: its own elements moved, other values, their products."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.program import Frame, Program, Step, Values
from handgrad.crosscheck.errors.repair.factors import FUNCTIONS, Factors
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.names import Names

MOST = 48  # values that are looked at for one place
PRODUCTS = 24  # values of which products are made

Value = Callable[[Frame, Any], Any]  # (frame, the value that stands there) -> another


class Proposal(NamedTuple):
    """A value that may stand at a place, up to a constant factor.

    Attributes:
      value: of it.
      replaced: words for it in place of what stands there, which is "{}"; "" where only adding it makes sense.
      alone: the same where what stands there is the whole line.
      term: what to call it as a term that is added.
      cost: how far from simple it is.
    """

    value: Value
    replaced: str
    alone: str
    term: str
    cost: float


class Visible:
    """The values that a place may use, those of its own scope computed before it; and what a number may mean."""

    def __init__(self, program: Program, values: Values, names: Names):
        self.names, self.values = names, values
        self.factors = Factors(program, names.arguments)
        steps = [one for step in program.steps for one in step.all()]
        self._lines = {slot: step.line for step in steps for slot in step.outputs}
        arguments = [*program.leaves, *program.dYs, *program.constants]
        self._scopes = [(-1, 1 << 30, self._useful(arguments, program.steps))]
        for step in program.steps:
            for one in step.all():
                if one.body is not None:
                    inner = self._useful(one.body.arguments, one.body.steps)
                    inside = [deep.site for body in one.body.steps for deep in body.all()]
                    if inside:
                        self._scopes.append((min(inside), max(inside), inner))

    def _useful(self, arguments: list[int], steps: list[Step]) -> list[tuple[int, int]]:
        """(site, slot) of numbers that aren't all the same, each once."""
        made = [(-1, slot) for slot in arguments] + [(step.site, slot) for step in steps for slot in step.outputs]
        found, seen = [], set()
        for site, slot in made:
            value = self.values[slot]
            if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fcb" or value.size > 1 << 16:
                continue
            constant = value.size > 1 and bool(np.all(value == np.asarray(value).reshape(-1)[0]))
            literal = site < 0 and value.size == 1 and slot not in self.names.rank
            key = (value.shape, value.dtype.char, np.ascontiguousarray(value).tobytes())
            if not constant and not literal and key not in seen:
                seen.add(key)
                found.append((site, slot))
        return found

    def distance(self, step: Step, slot: int) -> float:
        """How far above a step's line a value is computed, as a cost that decides between equals."""
        line, other = step.line, self._lines.get(slot)
        if line is None or other is None or line.file != other.file:
            return 0.0
        return 0.002 * min(abs(line.line - other.line), 20)

    def before(self, site: int) -> list[int]:
        """Slots of the scope around a step, of what is made before it: the nearest and those with names first."""
        scope = max((scope for scope in self._scopes if scope[0] <= site <= scope[1]), key=lambda scope: scope[0])
        slots = [slot for at, slot in scope[2] if at < site]
        return sorted(slots, key=lambda slot: self.names.rank.get(slot, 3))

    def like(self, site: int, shape: tuple[int, ...]) -> list[int]:
        """Those that stretch to a shape."""
        return [slot for slot in self.before(site) if _stretches(np.shape(self.values[slot]), shape)][:MOST]


def proposals(place: Place, step: Step, v: np.ndarray, visible: Visible, tier: int) -> Iterator[Proposal]:
    """What may stand at a place, the simplest in tier 0."""
    if tier == 0:
        yield Proposal(lambda frame, v: v, "{}", "", "{}", 0.7)
        yield from moved(v)
        yield Proposal(lambda frame, v: np.ones_like(v), "", "", "1", 1.2)
        for slot in visible.like(place.site, v.shape):
            if slot != place.slot and not np.array_equal(visible.values[slot], v):
                cost = 0.2 * visible.names.rank.get(slot, 3) + visible.distance(step, slot)
                yield _other(slot, visible.names[slot], cost)
        yield from _times_functions(place, step, v, visible, slice(1))
    elif tier == 1:
        yield from _reduced(place, v, visible)
        yield from _times_functions(place, step, v, visible, slice(1, None))
    elif step.name == "return":
        yield from _products(place, v, visible)


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


def _other(slot: int, name: str, cost: float) -> Proposal:
    return Proposal(
        lambda frame, v: frame.values[slot], f"{name} in place of {{}}", f"{name} instead", name, 1.2 + cost
    )


def _reduced(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
    """Sums along one axis, of the value itself and of others of its shape."""
    slots = [slot for slot in visible.like(place.site, v.shape) if np.shape(visible.values[slot]) == v.shape]
    for slot in (None, *(slot for slot in slots if slot != place.slot)):
        name = "{}" if slot is None else visible.names[slot]
        of = lambda frame, v, slot=slot: v if slot is None else frame.values[slot]  # noqa: E731
        for axis, n in enumerate(v.shape):
            if n > 1:
                along = "" if v.ndim == 1 else f" along axis {axis}"
                value = lambda frame, v, of=of, axis=axis: np.sum(of(frame, v), axis=axis, keepdims=True)  # noqa: E731
                mean = lambda frame, v, of=of, axis=axis: np.mean(of(frame, v), axis=axis, keepdims=True)  # noqa: E731
                for which, reduced in (("sum", value), ("mean", mean)):
                    words = f"the {which} of {name}{along}"
                    yield Proposal(reduced, f"{words} in place of {{}}", f"{words} instead", words, 2.0)
                if slot is not None:
                    yield from _projections(slot, name, axis, along)


def _projections(slot: int, name: str, axis: int, along: str) -> Iterator[Proposal]:
    """The sum of the value times another, alone and times that other again: what a normalization takes away."""
    for which, function in (("sum", np.sum), ("mean", np.mean)):
        inner = lambda frame, v, function=function: function(v * frame.values[slot], axis=axis, keepdims=True)  # noqa: E731
        words = f"the {which} of {{}} times {name}{along}"
        yield Proposal(inner, "", "", words, 2.2)
        outer = lambda frame, v, inner=inner: frame.values[slot] * inner(frame, v)  # noqa: E731
        yield Proposal(outer, "", "", f"{name} times {words}", 2.4)


def _times_functions(place: Place, step: Step, v: np.ndarray, visible: Visible, functions: slice) -> Iterator[Proposal]:
    """The value times a simple function of another, and that function alone."""
    for slot in visible.like(place.site, v.shape):
        boolean = visible.values[slot].dtype.kind == "b"
        name, own = visible.names.inside(slot), slot == place.slot
        for i, (template, function) in list(enumerate(FUNCTIONS[:2] if boolean else FUNCTIONS))[functions]:
            words = template.replace("{}", name)
            f = lambda frame, function=function, slot=slot: function(_numbers(frame.values[slot]))  # noqa: E731
            times = lambda frame, v, f=f: v * f(frame)  # noqa: E731
            cost = 1.5 + 0.1 * visible.names.rank.get(slot, 3) + 0.03 * i + (0.1 if i else 0) - 0.3 * own
            cost += visible.distance(step, slot)
            if own and template in ("{}", "{}²"):
                power = f"{name}{'²' if template == '{}' else '³'}"
                yield Proposal(times, f"{power} in place of {name}", f"{power} in place of {name}", power, cost)
            else:
                yield Proposal(times, f"{{}} times {words}", f"a factor of {words}", f"{{}} times {words}", cost)
            if i and not boolean:
                alone = lambda frame, v, f=f: f(frame)  # noqa: E731
                yield Proposal(alone, f"{words} in place of {{}}", f"{words} instead", words, cost + 0.4)


def _products(place: Place, v: np.ndarray, visible: Visible) -> Iterator[Proposal]:
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
            yield _other(slot, visible.names[slot], 0.5)


def _reductions(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The sets of axes whose sum turns one shape into the other, kept as axes of length 1 or dropped."""
    n = len(before)
    for bits in range(1, 1 << min(n, 6)):
        axes = tuple(axis for axis in range(n) if bits >> axis & 1)
        dropped = tuple(length for axis, length in enumerate(before) if axis not in axes)
        kept = tuple(1 if axis in axes else length for axis, length in enumerate(before))
        if after in (dropped, kept):
            yield axes


def _numbers(m: Any) -> Any:
    return m.astype(np.float64) if m.dtype.kind == "b" else m


def _stretches(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
