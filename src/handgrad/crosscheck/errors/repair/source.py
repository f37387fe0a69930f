"""The lines of a backward program's steps, as seen from the function that returns the cotangents."""

from typing import Any

from handgrad.crosscheck.errors.program.program import Program
from handgrad.crosscheck.errors.program.reading import operands
from handgrad.crosscheck.errors.program.source import Line, caller, stack_of

ELSEWHERE = 0.12  # a cost
FORWARD = 0.3  # the cost of a change in the forward pass
BOTH = 1.6  # of one in a helper of both passes: more than repairing another leaf too is worth


class Source:
    """Where the steps of a program stand.

    Attributes:
      lines: (file, line) of all.
      stacks: {site: the line of the step, that of the call of the function around it, and so on up to the function
        that returns the cotangents; empty where that doesn't run it, but another function, as the forward pass}.
      shared: the lines of the forward pass, columns and all.
      repeated: {site: all sites of the same expression, which a Python loop or a helper runs several times}.
    """

    def __init__(self, program: Program):
        steps = [one for step in program.steps for one in step.all()]
        self.lines = {(one.line.file, one.line.line) for one in steps if one.line is not None}
        self.stacks: dict[int, list[Line]] = {}
        self._other_file: set[int] = set()
        end = program.steps[-1].line
        for step in steps:
            inside = [end] if step.name == "return" else stack_of(step.traceback, end) if end is not None else []
            self.stacks[step.site] = [line for line in inside if line is not None]
            if step.line is not None and end is not None and step.line.file != end.file:
                self._other_file.add(step.site)
        forward = [one for step in program.needed(program.Ys) for one in step.all()]
        self.shared = {step.line for step in forward if step.line is not None}
        self._lines_of = {step.site: step.line for step in steps}
        self.repeated = _repeated(program)

    def unlikely(self, site: int) -> float:
        """The cost of a change that isn't in the function that returns the cotangents, or not even in its file."""
        helper = bool(self.stacks[site]) and self._lines_of.get(site) in self.shared
        return BOTH * helper + FORWARD * (not self.stacks[site]) + ELSEWHERE * (site in self._other_file)


def _repeated(program: Program) -> dict[int, tuple[int, ...]]:
    """Steps that are the same operation of the source: what changes one of them changes all."""
    calls: dict[Any, dict[int, list[int]]] = {}
    for step in (one for outer in program.backward()[1] for one in outer.all()):
        if step.line is not None:
            of_line = calls.setdefault((step.line, step.name), {})
            of_line.setdefault(caller(step.traceback, step.line), []).append(step.site)
    groups: list[tuple[int, ...]] = []
    for (line, name), of_line in calls.items():
        if len(of_line) > 1 and len({len(sites) for sites in of_line.values()}) == 1:
            groups += zip(*of_line.values(), strict=True)
        elif operands(line, name):  # in a Python loop
            groups.append(tuple(sorted(site for sites in of_line.values() for site in sites)))
    return {site: group for group in groups if len(group) > 1 for site in group}
