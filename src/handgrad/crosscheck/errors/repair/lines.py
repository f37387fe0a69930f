"""Of changes that are equally right, the line that one of them most likely belongs to."""

from collections.abc import Iterator
from itertools import pairwise

from handgrad.crosscheck.errors.program.program import Step
from handgrad.crosscheck.errors.program.reading import arguments, assignments, operands, renamed, returned
from handgrad.crosscheck.errors.program.source import Line
from handgrad.crosscheck.errors.repair.candidate import Candidate
from handgrad.crosscheck.errors.repair.leaf import Leaf

OTHERS = 2  # lines that are named beside the likeliest
AS_SIMPLE = 0.4  # the cost that a change may have more there
CALL = 0.05  # the cost of naming the line that calls or reads
BARE = 0.15  # of naming one that only returns a name
SHARED = 0.3  # of naming one that the forward pass runs too
RENAMED = 0.3  # what is likelier where a line only gives a name


def likeliest(leaf: Leaf, right: list[Candidate]) -> Candidate:
    """The simplest change, with its line and the other lines where one as simple does the same."""
    steps = {step.site: step for step in leaf.all_steps()}
    simplest: dict[tuple[str, int], tuple[float, Line | None, Candidate]] = {}
    for candidate in right:
        for line, cost in _lines(leaf, steps[candidate.site], candidate):
            place = (line.file, line.line) if line is not None else ("", 0)
            if place not in simplest or cost < simplest[place][0]:
                simplest[place] = cost, line, candidate
    (least, first, best), *others = sorted(simplest.values(), key=lambda found: found[0])
    # A line that the forward pass runs makes its output too.
    both = {(line.file, line.line) for line in leaf.source.shared}
    near = [line for cost, line, _ in others if line is not None and cost <= least + AS_SIMPLE]
    near = [line for line in near if (line.file, line.line) not in both]
    near.sort(key=lambda line: first is not None and line.file != first.file)  # those of the same file first
    return best._replace(line=first, also=tuple(near[:OTHERS]))


def _lines(leaf: Leaf, step: Step, candidate: Candidate) -> Iterator[tuple[Line | None, float]]:
    """Where a change may be written, and its cost there.

    At its step; where a function calls the helper that the step is in; where the value that it changes is read, or
    given the name that it is read by.
    """
    if candidate.complete:
        yield candidate.line or step.line, candidate.cost
        return
    bare = step.name == "return" and step.line is not None and returned(step.line, leaf.leaf)
    shared = bool(leaf.source.stacks[step.site]) and step.line in leaf.source.shared
    yield step.line, candidate.cost + BARE * bool(bare) + SHARED * shared
    if not candidate.movable:
        return
    for helper, line in pairwise(leaf.source.stacks[step.site]):
        if f"{helper.function}(" in line.text:
            yield line, candidate.cost + CALL
    readers = [one for outer in leaf.program.steps for one in outer.all() if candidate.slot in one.inputs]
    called = leaf.names[candidate.slot]
    names = {(step.line, called)}
    for one in [step] if candidate.slot in step.inputs else readers if len(readers) == 1 else []:
        if one.line is not None:
            own = returned(one.line, leaf.leaf) if one.name == "return" else ""
            if one is not step:
                yield one.line, candidate.cost + (BARE if own else CALL)
            read = own or [*operands(one.line, one.name)[one.inputs.index(candidate.slot) :], ""][0]
            names |= {(one.line, read)}
            names |= {(line, name) for line in leaf.source.stacks[one.site][1:] for name in arguments(line)}
    made = {one.line.line for one in leaf.steps if one.line and candidate.slot in one.outputs}
    for line, name in names:
        for given in [line._replace(line=n, start=-1, end=-1) for n in assignments(line, name)] if line else ():
            other = renamed(given)
            if given.line in made:
                yield given, candidate.cost + CALL
            elif other and (other == called or (name == called and candidate.slot in leaf.program.dYs)):
                yield given, candidate.cost - RENAMED
