"""Values of one shape in each other's place: residuals, cotangents, the arguments of a helper; and a helper's argument
with its sign flipped."""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

from handgrad.crosscheck.errors.gradient import is_gradient
from handgrad.crosscheck.errors.program.expressions import expressions
from handgrad.crosscheck.errors.program.program import Frame, Step
from handgrad.crosscheck.errors.program.reading import call_of, parameters, unpacking
from handgrad.crosscheck.errors.program.source import Line, caller
from handgrad.crosscheck.errors.repair.candidate import Candidate
from handgrad.crosscheck.errors.repair.leaf import Leaf
from handgrad.crosscheck.errors.repair.names import LONGEST, scope

PAIRS = 60  # that are tried
COST = 1.0


def exchanges(leaf: Leaf) -> Iterator[Candidate]:
    """Those that make the leaf right."""
    found = [*_cotangents(leaf), *_residuals(leaf), *_of_calls(leaf)]
    for candidate in found:
        if leaf.budget.left > 0 and leaf.make_right(candidate.changes):
            yield candidate


def _candidate(sites: Sequence[int], slot: int, words: str, line: Line | None, change: Any, cost: float) -> Candidate:
    first, *rest = sorted(sites)
    return Candidate(first, slot, words, words, cost, change, repeated=tuple(rest), line=line, complete=True)


def _cotangents(leaf: Leaf) -> Iterator[Candidate]:
    """Two that are returned in each other's place."""
    returns = leaf.program.steps[-len(leaf.program.cotangents) :]
    mine = returns[leaf.leaf]
    for i, other in enumerate(returns):
        slots = {mine.inputs[0]: other.inputs[0], other.inputs[0]: mine.inputs[0]}
        if other is mine or not _alike(mine.avals_in[0], other.avals_in[0]) or len(slots) < 2 or mine.line is None:
            continue
        pair = [leaf.names.element(j, mine.line) or leaf.names.gradient(j) for j in sorted((i, leaf.leaf))]
        change = lambda frame, slots=slots: [frame.values[slots[frame.step.inputs[0]]]]  # noqa: E731
        words = " and ".join(f"`{text}`" if len(text) <= LONGEST else "a cotangent" for text in pair) + " exchanged"
        yield _candidate((mine.site, other.site), mine.inputs[0], words, mine.line, change, COST)


def _residuals(leaf: Leaf) -> Iterator[Candidate]:
    """Two that the backward function reads in each other's place, wherever it does."""
    program, stacks, end = leaf.program, leaf.source.stacks, leaf.program.steps[-1].line
    inside = [step for step in program.steps if stacks[step.site]]
    made = {slot for step in inside for slot in step.outputs}
    kept = {slot: aval for step in inside for slot, aval in zip(step.inputs, step.avals_in, strict=True)}
    kept = {slot: aval for slot, aval in kept.items() if slot not in made and slot not in program.dYs}
    residuals = [slot for slot, aval in kept.items() if slot not in program.constants and is_gradient(aval)]
    alike = [pair for pair in combinations(residuals, 2) if _alike(*(kept[slot] for slot in pair))]
    if end is None:
        return
    for pair in alike[:PAIRS]:
        called = [leaf.names.at(slot, end) for slot in pair]
        line = unpacking(end, set(called))
        sites = [step.site for step in inside if set(pair) & set(step.inputs)]
        words = " and ".join(called) + " exchanged" + ("" if line else ", wherever they are read")
        change = _swapping(dict(zip(pair, pair[::-1], strict=True)))
        yield _candidate(sites, pair[0], words, line or end, change, COST + 0.1 + 0.4 * (line is None))


def _of_calls(leaf: Leaf) -> Iterator[Candidate]:
    """An argument of a helper that is called once with its sign flipped, and two of one shape exchanged."""
    roots = {one.site: e.roots(one) for e in expressions(leaf.program) for one in e.steps}
    for call, steps in _calls(leaf).items():
        line, helper = call[0], call[1]
        made = {slot for step in steps for slot in step.outputs}
        arguments: dict[int, tuple[str, Any]] = {}
        given = dict(zip(parameters(helper), call_of(line, helper.function), strict=False))
        places = {text: place for place, text in enumerate(given.values(), 1)}
        for step in steps:
            for slot, aval in zip(step.inputs, step.avals_in, strict=True):
                name = leaf.names.local.get(slot, {}).get(scope(helper), "")
                if slot not in made and slot in roots[step.site] and given.get(name) and is_gradient(aval):
                    arguments[slot] = given[name], aval
                elif slot not in made and step.name in ("broadcast_in_dim", "convert_element_type", "split"):
                    name = leaf.names.local.get(step.outputs[0], {}).get(scope(helper), name)
                    if given.get(name) and is_gradient(aval):
                        arguments[slot] = given[name], aval
        where = f"in `{line.expression}`" if len(line.expression) <= LONGEST else f"in the call of {helper.function}"
        for slot, (text, _) in arguments.items():
            sites = [step.site for step in steps if slot in step.inputs]
            several = len(re.findall(rf"(?<![\w.]){re.escape(text)}(?!\w)", line.expression)) > 1
            which = where.replace("in ", f"as argument {places[text]} of ", 1) if several else where
            yield _candidate(sites, slot, f"the sign of {text} flipped {which}", line, _negated(slot), COST - 0.2)
        for (one, (text, aval)), (two, (other, also)) in combinations(arguments.items(), 2):
            if _alike(aval, also):
                sites = [step.site for step in steps if {one, two} & set(step.inputs)]
                change = _swapping({one: two, two: one})
                yield _candidate(sites, one, f"{text} and {other} exchanged {where}", line, change, COST)


def _calls(leaf: Leaf) -> dict[tuple[Line, Line, int], list[Step]]:
    """{(the line of a call, a line of the helper, the call's number): the steps that it runs}."""
    found: dict[Any, list[Step]] = {}
    keys: dict[Any, tuple[Line, Line, int]] = {}
    for step in leaf.steps:
        stack = leaf.source.stacks[step.site]
        for helper, line in pairwise(stack):
            key = line, helper.function, caller(step.traceback, helper)
            keys.setdefault(key, (line, helper, key[2]))
            found.setdefault(key, []).append(step)
    return {keys[key]: steps for key, steps in found.items()}


def _swapping(slots: dict[int, int]) -> Any:
    def change(frame: Frame) -> list[Any]:
        return frame.run(
            [frame.values[slots[s]] if s in slots else x for s, x in zip(frame.step.inputs, frame.inputs, strict=True)]
        )

    return change


def _negated(slot: int) -> Any:
    def change(frame: Frame) -> list[Any]:
        return frame.run([-x if s == slot else x for s, x in zip(frame.step.inputs, frame.inputs, strict=True)])

    return change


def _alike(one: Any, two: Any) -> bool:
    return (one.shape, one.dtype) == (two.shape, two.dtype) and is_gradient(one)
