"""Single changes of a backward program that make one leaf's cotangent right."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.edits import Edit, count, edits
from handgrad.crosscheck.errors.program.program import MISFITS, Changes, Frame, Program, Step, Values
from handgrad.crosscheck.errors.repair.factors import Factor
from handgrad.crosscheck.errors.repair.linear import Instance, Place, Unrolled, flat
from handgrad.crosscheck.errors.repair.names import Names
from handgrad.crosscheck.errors.repair.proposals import Proposal, Visible, proposals, shaped
from handgrad.crosscheck.errors.repair.trials import Trial

ENOUGH = 16  # numbers that a fit is made to
TRIED = 2.0  # cost up to which functions are tried where nothing tells what is missing
FIT = 1e-7  # what a fit may leave, as a share


class Candidate(NamedTuple):
    """A change that might be the repair.

    Attributes:
      site: the step that it changes.
      slot: the value that it changes.
      words: what is done to that value, "{}", or to the step.
      alone: the same where the value is all that its line computes.
      cost: how far from simple it is.
      change: the step's.
      also: other sites where a change as simple does the same.
    """

    site: int
    slot: int
    words: str
    alone: str
    cost: float
    change: Callable[[Frame], list[Any]]
    also: tuple[int, ...] = ()


class Budget:
    """Steps that may still be run."""

    def __init__(self, steps: int):
        self.left = steps

    def take(self, steps: int) -> bool:
        """Whether there is enough left for these."""
        self.left -= steps
        return self.left > 0


class Spot(NamedTuple):
    """A place, with what was measured there.

    Attributes:
      place: where.
      step: the place's.
      v: what stands there in the first draw (and iteration).
      seen: for each draw, (what the step sees, the value there, the Jacobian of the result) for each iteration.
      adds: whether the result changes by L m where m is added.
      replaces: whether it changes by L (w − v) where w is put there. Where each iteration of a loop depends on the one
        before, only what is added has this linear an effect.
    """

    place: Place
    step: Step
    v: np.ndarray
    seen: list[list[tuple[Instance, np.ndarray, np.ndarray]]]
    adds: bool
    replaces: bool
    looped: bool


class Leaf:
    """The search for one leaf's repair.

    Attributes:
      steps: the backward steps that its cotangent needs.
      errors: truth − hand for each draw.
    """

    def __init__(self, trial: Trial, values: list[Values], leaf: int, standing: Changes, names: Names, budget: Budget):
        self.trial, self.leaf, self.standing, self.names, self.budget = trial, leaf, standing, names, budget
        self.program: Program = trial.program
        self.result = self.program.cotangents[leaf]
        backward = {step.site for step in self.program.backward()[1]}
        self.steps = [step for step in self.program.needed([self.result]) if step.site in backward]
        self.weight = sum(step.weight for step in self.steps)
        size = max(trial.truth[0][leaf].size, 1)
        draws = min(len(values), max(1, -(-ENOUGH // size)))
        self.values, self.truth = values[:draws], [draw[leaf] for draw in trial.truth[:draws]]
        self.misshapen = any(
            draw[self.result].shape != truth.shape for draw, truth in zip(self.values, self.truth, strict=True)
        )
        self.visible = Visible(self.program, self.values[0], names)

    def candidates(self) -> Iterator[list[Candidate]]:
        """Changes that make the leaf right at these inputs, in tiers of falling simplicity."""
        if self.misshapen:
            yield list(self._reshaping())
            return
        self.errors = [flat(t) - flat(v[self.result]) for t, v in zip(self.truth, self.values, strict=True)]
        yield [candidate for step in self.steps for one in step.all() for candidate in self._of_step(one)]
        self.spots = list(self._spots())
        for tier in range(3):
            found = []
            for spot in self.spots:
                if self.budget.left <= 0:
                    break
                found += self._at(spot, tier)
            yield found

    def makes_right(self, site: int, change: Callable[[Frame], list[Any]]) -> bool:
        """Whether a change makes the leaf right in every draw."""
        return self.make_right({site: change})

    def make_right(self, changes: Changes) -> bool:
        """Whether changes make the leaf right in every draw."""
        for draw in range(len(self.values)):
            found = self.after_all(changes, draw)
            if found is None or not self.trial.right(self.leaf, found, draw):
                return False
        return True

    def after(self, site: int, change: Callable[[Frame], list[Any]], draw: int) -> Any:
        """The cotangent after a change; None where it doesn't fit."""
        return self.after_all({site: change}, draw)

    def after_all(self, changes: Changes, draw: int) -> Any:
        """The cotangent after several changes; None where they don't fit."""
        if not self.budget.take(self.weight // 2 + 1):
            return None
        try:
            with np.errstate(all="ignore"):
                return self.program.rerun(self.steps, self.values[draw], {**self.standing, **changes})[self.result]
        except MISFITS:
            return None

    def _of_step(self, step: Step) -> Iterator[Candidate]:
        """The catalogue's edits."""
        if step.site in self.standing:
            return
        for edit in (*edits(step), *self._along(step)):
            if self.makes_right(step.site, edit.change):
                words, cost = edit.words, EDIT_COSTS.get(edit.kind, 1.2)
                if words == "the division left out" and self._averages(step):
                    words, cost = "a sum instead of the mean", 0.8
                for i, slot in enumerate(step.inputs):
                    words = words.replace(f"operand {i}", self.names[slot])
                literal = any(slot in self.program.constants for slot in step.inputs)
                cost += 0.1 * (edit.kind == "swapped operands" and literal) - 1e-4 * step.site
                yield Candidate(step.site, step.outputs[0], words, words, cost, edit.change)

    def _along(self, step: Step) -> Iterator[Edit]:
        """A reduction that keeps its axis, along another one: the reduction, its new axis and a mean's division."""
        made = {slot: one for outer in self.program.steps for one in outer.all() for slot in one.outputs}
        mean = step.name == "div" and self._averages(step)
        kept = made.get(step.inputs[0]) if mean else step
        reduced = (
            made.get(kept.inputs[0]) if kept is not None and kept.name in ("broadcast_in_dim", "reshape") else None
        )
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

    def _averages(self, step: Step) -> bool:
        """Whether a division makes a mean of a sum."""
        made = {slot: one for outer in self.program.steps for one in outer.all() for slot in one.outputs}
        divided = made.get(step.inputs[0])
        while divided is not None and divided.name in (
            "broadcast_in_dim",
            "reshape",
            "squeeze",
            "convert_element_type",
        ):
            divided = made.get(divided.inputs[0])
        by = self.program.constants.get(step.inputs[1])
        if divided is None or divided.name != "reduce_sum" or by is None:
            return False
        return bool(np.all(by == count(divided)))

    def _reshaping(self) -> Iterator[Candidate]:
        """What gives a cotangent of a wrong shape its leaf's."""
        for step in self.steps:
            yield from self._of_step(step)
        step = self.steps[-1] if self.steps else self.program.steps[-1]
        place = Place(step.site, None, 0, self.result)
        for proposal in shaped(np.asarray(self.values[0][self.result]), self.truth[0].shape, self.visible):
            change = place.change(proposal.value)
            if self.makes_right(step.site, change):
                yield Candidate(step.site, step.inputs[0], proposal.replaced, proposal.alone, proposal.cost, change)
            sizes = self.visible.factors.sizes
            for words, size in sizes:
                scaled = lambda frame, v, size=size, value=proposal.value: value(frame, v) / size(frame.program)  # noqa: E731
                if self.makes_right(step.site, place.change(scaled)):
                    both = [f"{one}, divided by {words}" for one in (proposal.replaced, proposal.alone)]
                    scaled = place.change(scaled)
                    yield Candidate(step.site, step.inputs[0], both[0], both[1], proposal.cost + 1, scaled)

    def _spots(self) -> Iterator[Spot]:
        """Every value that the leaf's cotangent is made of: where it is computed, and where one step alone reads it."""
        runs = [Unrolled(self.program, self.steps, v, self.result, self.standing) for v in self.values]
        users = Counter(slot for step in self.program.steps for one in step.all() for slot in one.inputs)
        made = {slot for step in self.steps for one in step.all() for slot in one.outputs}
        returned = self.program.steps[-len(self.program.cotangents) + self.leaf].inputs[0]
        for step in (one for outer in self.steps for one in outer.all()):
            if step.site in self.standing:
                continue
            for i, slot in enumerate(step.inputs):
                if slot not in made or users[slot] > 1 or step.name == "return":
                    yield from self._spot(Place(step.site, i, 0, slot), step, runs)
            for k, slot in enumerate(step.outputs):
                if step.name != "return" and (slot != returned or users[slot] > 1):
                    yield from self._spot(Place(step.site, None, k, slot), step, runs)

    def _spot(self, place: Place, step: Step, runs: list[Unrolled]) -> Iterator[Spot]:
        seen = []
        v = None
        for run in runs:
            of_draw = []
            for instance in run.at.get(place.site, ()):
                if place.operand is None:
                    number = instance.outputs[place.output]
                    L = run.by_value.get(number)
                else:
                    number = instance.inputs[place.operand]
                    L = run.by_operand.get((id(instance), place.operand))
                value = run.values[number]
                v = value if v is None else v
                if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fc":
                    return
                if L is not None:
                    of_draw.append((instance, np.asarray(value), L))
            seen.append(of_draw)
        if v is None or not np.isfinite(v).all():
            return
        if step.body is None and all(seen) and not any(np.any(L) for of_draw in seen for _, _, L in of_draw):
            return
        replaces, adds = [
            all(seen) and all(self._linear(place, of_draw, k, replaced) for k, of_draw in enumerate(seen))
            for replaced in (True, False)
        ]
        looped = any(len(of_draw) > 1 for of_draw in seen)
        yield Spot(place, step, np.asarray(v), seen, adds, replaces, looped)

    def _linear(
        self, place: Place, of_draw: list[tuple[Instance, np.ndarray, np.ndarray]], draw: int, replaced: bool
    ) -> bool:
        """Whether the result changes by L (w − v) whatever w is put there, or by L w whatever w is added."""
        v = of_draw[0][1]
        w = (np.random.default_rng(0).standard_normal(v.shape) * (1 + np.abs(v))).astype(v.dtype)
        changed = self.after(place.site, place.change(lambda frame, v: w if replaced else v + w), draw)
        if changed is None:
            return False
        effect = sum(L @ (flat(w) - replaced * flat(v)) for _, v, L in of_draw)
        predicted = flat(self.values[draw][self.result]) + effect
        error = np.max(np.abs(flat(changed) - predicted), initial=0.0)
        return bool(error <= 1e-8 * max(np.max(np.abs(predicted), initial=0.0), 1e-300))

    def _at(self, spot: Spot, tier: int) -> Iterator[Candidate]:
        """What may stand at a place instead, or beside what stands there."""
        found = list(self.proposals(spot, tier))
        if tier < 2 and (spot.looped or not spot.replaces):
            yield from self._tried(spot, found, tier)
        if not spot.adds:
            return
        kept, R = self.responses(spot, found)
        if not kept:
            return
        add = np.concatenate(self.errors)
        for i, c in fitted(R, add):
            if kept[i].replaced != "{}":
                yield from self._scaled(spot, kept[i], c, False)
        if spot.replaces:
            own = np.concatenate([sum(L @ flat(v) for _, v, L in of_draw) for of_draw in spot.seen])
            for i, c in fitted(R, add + own):
                if kept[i].replaced:
                    yield from self._scaled(spot, kept[i], c, True)

    def proposals(self, spot: Spot, tier: int) -> Iterator[Proposal]:
        """What may stand at a place."""
        return proposals(spot.place, spot.step, spot.v, self.visible, tier)

    def responses(self, spot: Spot, found: Sequence[Proposal]) -> tuple[list[Proposal], np.ndarray]:
        """What each proposed value alone does to the cotangents of all draws: (the proposals that fit, their rows)."""
        if not self.budget.take(len(found) // 2):
            return [], np.zeros((0, 0))
        places = [(draw, *one) for draw, of_draw in enumerate(spot.seen) for one in of_draw]
        columns: list[list[np.ndarray]] = [[] for _ in places]
        kept = []
        for proposal in found:
            row = [evaluated(self.program, spot.step, instance.values, proposal, v) for _, instance, v, _ in places]
            if all(w is not None for w in row):
                kept.append(proposal)
                for column, w in zip(columns, row, strict=True):
                    column.append(flat(w))
        if not kept:
            return [], np.zeros((0, 0))
        effects: list[Any] = [0.0] * len(spot.seen)
        for (draw, _, _, L), column in zip(places, columns, strict=True):
            effects[draw] = effects[draw] + np.stack(column) @ L.T
        return kept, np.concatenate(effects, axis=1)

    def _scaled(self, spot: Spot, proposal: Proposal, c: float, replaced: bool) -> Iterator[Candidate]:
        for factor in self.visible.factors.meanings(c, spot.step):
            yield self.candidate(spot, proposal, factor, replaced)

    def candidate(self, spot: Spot, proposal: Proposal, factor: Factor, replaced: bool) -> Candidate:
        """A proposal times a factor, in place of what stands there or added to it."""

        def value(frame: Frame, v: Any) -> Any:
            w = factor.value(frame.program, frame.step) * proposal.value(frame, v)
            return w if replaced else v + w

        words, alone, cost = worded(proposal, factor, replaced)
        # A factor or a term belongs to the last of a chain of values, another value in place of one to the first.
        whole = proposal.replaced == "{}" and spot.step.name != "return" and spot.place.operand is not None
        last = proposal.replaced == "{}" or not replaced
        cost += 0.1 * whole + 1e-4 * (-spot.place.site if last else spot.place.site)
        return Candidate(spot.place.site, spot.place.slot, words, alone, cost, spot.place.change(value))

    def _tried(self, spot: Spot, found: Sequence[Proposal], tier: int) -> Iterator[Candidate]:
        """Where a value's effect isn't linear, each change is tried."""
        for proposal in found:
            own = proposal.replaced == "{}"
            if tier and proposal.cost > TRIED:
                continue
            # What is put or added inside a loop may itself change with the iteration before.
            looped = spot.looped and tier == 0
            replaced = [True] if proposal.replaced and (looped or not spot.replaces) else []
            added = [False] if not own and (looped or not spot.adds) else []
            for way in replaced + added:
                for factor in self.visible.factors.tried(own)[own:]:
                    candidate = self.candidate(spot, proposal, factor, way)
                    if self.makes_right(candidate.site, candidate.change):
                        yield candidate


def evaluated(program: Program, step: Step, values: Values, proposal: Proposal, v: np.ndarray) -> Any:
    """A proposed value at these inputs, stretched to v's shape; None where it isn't one."""
    inputs = [values[slot] for slot in step.inputs]
    try:
        with np.errstate(all="ignore"):
            w = proposal.value(Frame(step, inputs, values, program), v)
            w = np.broadcast_to(w, v.shape)
            if np.iscomplexobj(w) and v.dtype.kind != "c":
                return None
            return w.astype(v.dtype) if np.isfinite(w).all() else None
    except MISFITS:
        return None


def fitted(R: np.ndarray, target: np.ndarray) -> list[tuple[int, float]]:
    """(row, c) where c × the row is the target."""
    squares, size = np.einsum("ij,ij->i", R, R), np.sqrt(target @ target)
    if size == 0:
        return []
    with np.errstate(all="ignore"):
        c = R @ target / squares
        left = np.sqrt(np.maximum(target @ target - c * c * squares, 0))
        close = np.flatnonzero(left <= 1e-5 * size)
    return [(int(i), float(c[i])) for i in close if np.linalg.norm(target - c[i] * R[i]) <= FIT * size]


EDIT_COSTS = {"mean for a sum": 0.8, "sign of a term": 1.0, "transposed operand": 1.0, "missing reduction": 4.0}
EDIT_COSTS |= {
    "wrong branch": 1.0,
    "one branch alone": 3.0,
    "last one dropped from a sum": 4.0,
    "off by one": 2.0,
    "dropped term": 1.5,
}
EDIT_COSTS |= {"dropped factor": 1.5, "swapped operands": 1.0, "wrong axis": 1.1, "column-major": 3.0}


def worded(proposal: Proposal, factor: Factor, replaced: bool) -> tuple[str, str, float]:
    """(what is done to the value "{}", the same where it is the whole line, cost)."""
    times, cost = factor.words, proposal.cost + factor.cost
    if not replaced:
        size = times.removeprefix("−")
        term = proposal.term if size == "1" else f"{size} × {proposal.term}"
        words = f"{term} {'subtracted' if times.startswith('−') else 'added'}"
        return words + " from {}" * times.startswith("−") + " to {}" * (not times.startswith("−")), words, cost + 0.3
    if proposal.replaced == "{}":
        return *_multiplied(times), cost
    if times == "1":
        return proposal.replaced, proposal.alone, cost
    beside = " and the sign flipped" if times == "−1" else f", × {times}"
    return proposal.replaced + beside, proposal.alone + beside, cost


def _multiplied(times: str) -> tuple[str, str]:
    """The words for a constant factor."""
    if times == "−1":
        return "the sign of {} flipped", "its sign flipped"
    if times.startswith("1 / "):
        return f"{{}} divided by {times[4:]}", f"a division by {times[4:]}"
    return f"{{}} × {times}", f"a factor of {times}"
