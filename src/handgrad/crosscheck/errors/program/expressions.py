"""The steps of one expression: which of them makes its value, and which only cast or stretch an operand."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from handgrad.crosscheck.errors.program.program import Program, Step

PASSING = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type")


class Expression(NamedTuple):
    """Consecutive steps that one expression of the source runs once.

    Attributes:
      steps: in order.
      value: the step that makes the expression's value.
    """

    steps: list[Step]
    value: Step

    def roots(self, step: Step) -> list[int]:
        """The slots of a step's operands, each before this expression has cast or stretched it."""
        made = {slot: one for one in self.steps for slot in one.outputs}
        found = []
        for slot in step.inputs:
            while slot in made and made[slot].name in PASSING:
                slot = made[slot].inputs[0]
            found.append(slot)
        return found


def expressions(program: Program) -> Iterator[Expression]:
    """The expressions of a program, those of loops' bodies too; a step whose columns aren't known is one by itself."""
    steps = [one for step in program.steps for one in step.all()]
    read: dict[int, set[int]] = {}
    for step in steps:
        for slot in step.inputs:
            read.setdefault(slot, set()).add(step.site)
        for slot in step.body.results if step.body else ():
            read.setdefault(slot, set()).add(step.site)
    for run in _runs(steps):
        own = {step.site for step in run}
        used = [one for one in run if any(read.get(slot, {-1}) - own for slot in one.outputs)]
        yield Expression(run, (used or run)[-1])


def _runs(steps: Sequence[Step]) -> Iterator[list[Step]]:
    run: list[Step] = []
    seen: dict[Any, Any] = {}
    for step in steps:
        same = bool(run) and step.line == run[0].line and step.line is not None and step.line.start >= 0
        key = _stack(step.traceback)
        # The same call of a primitive once more is the next iteration of a Python loop.
        if not same or seen.get(key, step.traceback) is not step.traceback or "return" in (step.name, run[0].name):
            if run:
                yield run
            run, seen = [], {}
        run.append(step)
        seen[key] = step.traceback
    if run:
        yield run


def _stack(traceback: Any) -> Any:
    try:
        codes, offsets = traceback.raw_frames()
    except AttributeError:  # not part of JAX's promises
        return None
    return tuple(zip(map(id, codes), offsets, strict=True))
