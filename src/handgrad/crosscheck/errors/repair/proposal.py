"""A value that may be put somewhere, and the values that a place may use."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.program import Frame, Program, Step, Values
from handgrad.crosscheck.errors.repair.factors import Factors
from handgrad.crosscheck.errors.repair.names import Names

MOST = 48  # values that are looked at for one place

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


class Operand(NamedTuple):
    """A value as a place may use it.

    Attributes:
      slot: its own.
      name, inside: what to call it, and as part of a formula.
      rank: 0 for an argument, then what has a name, then the rest.
      axes: of length 1 that it gets at its end, as in `g[:, None]`.
    """

    slot: int
    name: str
    inside: str
    rank: float
    axes: int = 0

    def of(self, values: Values) -> Any:
        """The value."""
        value = values[self.slot]
        return value.reshape(np.shape(value) + (1,) * self.axes) if self.axes else value


class Visible:
    """The values that a place may use, those of its own scope computed before it; and what a number may mean.

    Attributes:
      unread: slots that none of the cotangent's steps reads.
    """

    def __init__(self, program: Program, values: Values, names: Names, read: Sequence[Step], fit: float):
        self.unread = set(range(program.slots)) - {slot for step in read for one in step.all() for slot in one.inputs}
        self.names, self.values = names, values
        self.factors = Factors(program, names.arguments, fit)
        steps = [one for step in program.steps for one in step.all()]
        self._lines = {slot: step.line for step in steps for slot in step.outputs}
        self._at = {step.site: step.line for step in steps}
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

    def inside(self, slot: int, site: int) -> str:
        """What to call a value at a step's line, as part of a formula."""
        return self.names.inside(slot, self._at.get(site))

    def operand(self, slot: int, site: int, axes: int = 0) -> Operand:
        """A value as a step's line can read it, with axes added at its end."""
        name, inside = self.names.at(slot, self._at.get(site)), self.inside(slot, site)
        rank = self.names.rank.get(slot, 3)
        if axes:
            name = inside = f"{inside}[{':, ' * np.ndim(self.values[slot])}{', '.join(['None'] * axes)}]"
        return Operand(slot, name, inside, rank, axes)

    def like(self, site: int, shape: tuple[int, ...]) -> list[Operand]:
        """Those that stretch to a shape, or do so when they get axes at their end."""
        found = []
        for slot in self.before(site):
            own = np.shape(self.values[slot])
            axes = len(shape) - len(own) if own else 0
            if _stretches(own, shape):
                found.append(self.operand(slot, site))
            elif axes > 0 and _stretches(own + (1,) * axes, shape):
                found.append(self.operand(slot, site, axes))
        return found[:MOST]


def other(operand: Operand, cost: float) -> Proposal:
    """Another value in place of what stands there."""
    name = operand.name
    value = lambda frame, v: operand.of(frame.values)  # noqa: E731
    return Proposal(value, f"{name} in place of {{}}", f"{name} instead", name, 1.2 + cost)


def _stretches(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
