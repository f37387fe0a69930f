"""The catalogue's edits, tried at every step; and what gives a cotangent of a wrong shape the right one."""

import ast
from collections.abc import Iterator
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.arrangement import count
from handgrad.crosscheck.errors.program.edit import Edit
from handgrad.crosscheck.errors.program.edits import edits
from handgrad.crosscheck.errors.program.program import Frame, Program, Step
from handgrad.crosscheck.errors.program.reading import operand_nodes
from handgrad.crosscheck.errors.repair.candidate import COSTS, Candidate, scaled
from handgrad.crosscheck.errors.repair.factors import ONE
from handgrad.crosscheck.errors.repair.leaf import Leaf
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.names import LONGEST
from handgrad.crosscheck.errors.repair.products import shaped, stretched
from handgrad.crosscheck.errors.repair.proposal import Proposal

# Words of an edit: (which operand they are about, the words with its name).
_OF_OPERANDS = {
    "the first factor left out": (0, "the factor {} left out"),
    "the second factor left out": (1, "the factor {} left out"),
    "the first term left out": (0, "the term {} left out"),
    "the second term left out": (1, "the term {} left out"),
    "the first term's sign flipped": (0, "the sign of {} flipped"),
    "the second term's sign flipped": (1, "the sign of {} flipped"),
    "the division left out": (1, "the division by {} left out"),
}
LIKELY = 1.5  # the cost of factors that are tried
_PASSING = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type")


def edited(leaf: Leaf) -> Iterator[Candidate]:
    """The edits that make the leaf right."""
    for step, others in leaf.operations():
        for edit in possible(leaf.program, step):
            if leaf.make_right(dict.fromkeys((step.site, *others), edit.change)):
                yield candidate(leaf, step, edit)._replace(repeated=others)


def everywhere(leaf: Leaf) -> Iterator[Candidate]:
    """A factor of what runs several times."""
    own = Proposal(lambda frame, v: v, "{}", "", "{}", 0.7)
    for step, others in leaf.operations():
        place = Place(step.site, None, 0, step.outputs[0])
        for factor in leaf.visible.factors.tried(whole=True)[1:] if others else ():
            one = scaled(place, False, own, factor, True)._replace(repeated=others)
            if factor.cost <= LIKELY and leaf.make_right(one.changes):
                yield one


def possible(program: Program, step: Step) -> Iterator[Edit]:
    """What a step could do instead."""
    yield from edits(step)
    yield from _along(program, step)
    if step.name == "dot_general" and step.params["dimension_numbers"] == (((1,), (0,)), ((), ())):
        a, b = (aval.shape for aval in step.avals_in)
        if len(a) == len(b) == 2 and a[0] == b[1]:
            yield Edit("swapped operands", "the operands exchanged", lambda frame: [frame.inputs[1] @ frame.inputs[0]])


def candidate(leaf: Leaf, step: Step, edit: Edit) -> Candidate:
    """An edit as a change that might be the repair."""
    words, cost = edit.words, COSTS.get("sign left out" if edit.words == "the minus sign left out" else edit.kind, 1.2)
    if words == "the division left out" and _averages(leaf.program, step):
        words, cost = "a sum instead of the mean", 0.8
    for i, slot in enumerate(step.inputs):
        words = words.replace(f"operand {i}", leaf.names[slot])
    if words in _OF_OPERANDS and step.line is not None:
        which, named = _OF_OPERANDS[words]
        nodes = operand_nodes(step.line, step.name)
        text = ast.unparse(nodes[which]) if len(nodes) == 2 else ""
        if text and len(text) <= LONGEST:
            words = named.format(text if text.isidentifier() else f"`{text}`")
    literal = any(slot in leaf.program.constants for slot in step.inputs)
    cost += 0.1 * (edit.kind == "swapped operands" and literal) - 1e-4 * step.site
    # A number that only has to be left out was written there.
    which, _ = _OF_OPERANDS.get(edit.words, (0, ""))
    number = edit.kind == "dropped factor" and step.inputs[which] in leaf.program.constants
    cost -= 0.75 * (number and not step.avals_in[which].shape)
    return Candidate(step.site, step.outputs[0], words, words, cost, edit.change)


def _along(program: Program, step: Step) -> Iterator[Edit]:
    """A reduction that keeps its axis, along another one: the reduction, its new axis and a mean's division."""
    made = _makers(program)
    mean = step.name == "div" and _averages(program, step)
    kept = made.get(step.inputs[0]) if mean else step
    reduced = made.get(kept.inputs[0]) if kept is not None and kept.name in ("broadcast_in_dim", "reshape") else None
    if reduced is None or reduced.name not in ("reduce_sum", "reduce_max", "reduce_min"):
        return
    name = "mean" if mean else reduced.name.removeprefix("reduce_")
    axes, shape = reduced.params["axes"], reduced.avals_in[0].shape
    if len(axes) > 1 or step.avals_out[0].shape != tuple(1 if i in axes else n for i, n in enumerate(shape)):
        return
    for axis in range(len(shape)):
        if axis not in axes:

            def change(frame: Frame, axis: int = axis, slot: int = reduced.inputs[0]) -> list[Any]:
                return [getattr(np, name)(frame.values[slot], axis=axis, keepdims=True)]

            yield Edit("wrong axis", f"the {name} over axis {axis} instead of axis {axes[0]}", change)


def _averages(program: Program, step: Step) -> bool:
    """Whether a division makes a mean of a sum."""
    made = _makers(program)
    divided = made.get(step.inputs[0])
    while divided is not None and divided.name in _PASSING:
        divided = made.get(divided.inputs[0])
    by = program.constants.get(step.inputs[1])
    if divided is None or divided.name != "reduce_sum" or by is None:
        return False
    return bool(np.all(by == count(divided)))


def _makers(program: Program) -> dict[int, Step]:
    return {slot: one for outer in program.steps for one in outer.all() for slot in one.outputs}


def reshaped(leaf: Leaf) -> Iterator[Candidate]:
    """What gives a cotangent of a wrong shape its leaf's."""
    yield from edited(leaf)
    for step in (one for one in leaf.all_steps() if one.site not in leaf.repeated and one.body is None):
        place = Place(step.site, None, 0, step.outputs[0])
        for proposal in stretched(place, np.asarray(leaf.values[0][place.slot]), leaf.visible):
            if leaf.makes_right(step.site, place.change(proposal.value)):
                yield scaled(place, step.name == "return", proposal, ONE, True)
    step = leaf.program.steps[-len(leaf.program.cotangents) + leaf.leaf]
    place = Place(step.site, None, 0, leaf.result)
    for proposal in shaped(place, np.asarray(leaf.values[0][leaf.result]), leaf.truth[0].shape, leaf.visible):
        change = place.change(proposal.value)
        if leaf.makes_right(step.site, change):
            yield Candidate(step.site, step.inputs[0], proposal.replaced, proposal.alone, proposal.cost, change)
        for words, size in leaf.visible.factors.sizes:

            def value(frame: Frame, v: Any, of: Any = proposal.value, size: Any = size) -> Any:
                return of(frame, v) / size(frame.program)

            change = place.change(value)
            if leaf.makes_right(step.site, change):
                both = [f"{one}, divided by {words}" for one in (proposal.replaced, proposal.alone)]
                yield Candidate(step.site, step.inputs[0], both[0], both[1], proposal.cost + 1, change)
