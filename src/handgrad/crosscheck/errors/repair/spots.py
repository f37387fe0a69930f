"""The places of a backward program where a value may be changed, and what that does to the cotangent."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.program import MISFITS, Frame, Program, Step, Values
from handgrad.crosscheck.errors.repair.leaf import Leaf
from handgrad.crosscheck.errors.repair.linear import Instance, Place, Unrolled, flat
from handgrad.crosscheck.errors.repair.proposal import Proposal

Seen = list[tuple[Instance, np.ndarray, np.ndarray]]  # what a step sees, the value there, the result's Jacobian by it


class Spot(NamedTuple):
    """A place, with what was measured there.

    Attributes:
      place: where.
      step: the place's.
      v: what stands there in the first draw, and iteration.
      seen: for each draw, and for each iteration of a loop.
      adds: whether the result changes by L m where m is added.
      replaces: whether it changes by L (w − v) where w is put there. Where each iteration of a loop depends on the one
        before, only what is added has this linear an effect.
      looped: whether the step is inside a loop.
    """

    place: Place
    step: Step
    v: np.ndarray
    seen: list[Seen]
    adds: bool
    replaces: bool
    looped: bool

    @property
    def own(self) -> np.ndarray:
        """L v over all draws: what the cotangent has from what stands here."""
        return np.concatenate([sum(L @ flat(v) for _, v, L in of_draw) for of_draw in self.seen])


def spots(leaf: Leaf) -> Iterator[Spot]:
    """Every value that a cotangent is made of: where it is computed, and where one of its readers reads it."""
    runs = [Unrolled(leaf.program, leaf.steps, v, leaf.result, leaf.standing) for v in leaf.values]
    users = Counter(slot for step in leaf.program.steps for one in step.all() for slot in one.inputs)
    made = {slot for step in leaf.steps for one in step.all() for slot in one.outputs}
    # A residual is changed where the backward function reads it, rather than where the forward function makes it.
    inside = leaf.source.stacks
    residuals = {slot for step in leaf.steps if not inside[step.site] for slot in step.outputs}
    for step in (one for one in leaf.all_steps() if one.site not in leaf.repeated):
        places = [
            Place(step.site, i, 0, slot)
            for i, slot in enumerate(step.inputs)
            if slot not in made or users[slot] > 1 or step.name == "return" or (slot in residuals and inside[step.site])
        ]
        places += [
            Place(step.site, i, 0, slot, stretched=True)
            for i, slot in enumerate(step.inputs)
            if any((id(one), i) in run.by_stretched for run in runs for one in run.at.get(step.site, ()))
        ]
        places += [Place(step.site, None, k, slot) for k, slot in enumerate(step.outputs) if step.name != "return"]
        for place in places:
            spot = _spot(leaf, place, step, runs)
            if spot is not None:
                yield spot


def _spot(leaf: Leaf, place: Place, step: Step, runs: list[Unrolled]) -> Spot | None:
    """What can be measured at a place; None where a change there has no effect."""
    values = [_value(run, instance, place) for run in runs for instance in run.at.get(place.site, ())]
    if not values or not all(isinstance(v, np.ndarray | np.generic) and v.dtype.kind in "fc" for v in values):
        return None
    v = np.asarray(values[0])
    if not np.isfinite(v).all():
        return None
    seen = [list(_seen(run, place)) for run in runs]
    if step.body is None and all(seen) and not any(np.any(L) for of_draw in seen for _, _, L in of_draw):
        return None
    adds, replaces = [
        all(seen) and all(_linear(leaf, place, of_draw, draw, replaced) for draw, of_draw in enumerate(seen))
        for replaced in (False, True)
    ]
    return Spot(place, step, v, seen, adds, replaces, any(len(of_draw) > 1 for of_draw in seen))


def _number(instance: Instance, place: Place) -> int:
    return instance.outputs[place.output] if place.operand is None else instance.inputs[place.operand]


def _value(run: Unrolled, instance: Instance, place: Place) -> Any:
    value = run.values[_number(instance, place)]
    return np.broadcast_to(value, np.shape(run.values[instance.outputs[0]])) if place.stretched else value


def _seen(run: Unrolled, place: Place) -> Iterator[tuple[Instance, np.ndarray, np.ndarray]]:
    for instance in run.at.get(place.site, ()):
        number = _number(instance, place)
        i = place.operand
        if i is None:
            L = run.by_value.get(number)
        else:
            L = (run.by_stretched if place.stretched else run.by_operand).get((id(instance), i))
        if L is not None:
            yield instance, np.asarray(_value(run, instance, place)), L


def _linear(leaf: Leaf, place: Place, of_draw: Seen, draw: int, replaced: bool) -> bool:
    """Whether the result changes by L (w − v) whatever w is put there, or by L w whatever w is added."""
    v = of_draw[0][1]
    w = (np.random.default_rng(0).standard_normal(v.shape) * (1 + np.abs(v))).astype(v.dtype)
    change = place.change(lambda frame, v: w if replaced else v + w)
    changed = leaf.after({place.site: change}, draw)
    if changed is None:
        return False
    with np.errstate(all="ignore"):
        effect = sum(L @ (flat(w) - replaced * flat(v)) for _, v, L in of_draw)
        predicted = flat(leaf.values[draw][leaf.result]) + effect
        error = np.max(np.abs(flat(changed) - predicted), initial=0.0)
    return bool(error <= 1e-8 * max(np.max(np.abs(predicted), initial=0.0), 1e-300))


def responses(leaf: Leaf, spot: Spot, found: Sequence[Proposal]) -> tuple[list[Proposal], np.ndarray]:
    """What each proposed value alone does to the cotangents of all draws: (the proposals that fit, their rows)."""
    if not leaf.budget.take(len(found) // 2):
        return [], np.zeros((0, 0))
    places = [(draw, *one) for draw, of_draw in enumerate(spot.seen) for one in of_draw]
    columns: list[list[np.ndarray]] = [[] for _ in places]
    kept = []
    for proposal in found:
        row = [_evaluated(leaf.program, spot.step, instance.values, proposal, v) for _, instance, v, _ in places]
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


def _evaluated(program: Program, step: Step, values: Values, proposal: Proposal, v: np.ndarray) -> Any:
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


def fitted(R: np.ndarray, target: np.ndarray, fit: float) -> list[tuple[int, float]]:
    """(row, c) where c × the row is the target."""
    squares, size = np.einsum("ij,ij->i", R, R), np.sqrt(target @ target)
    if size == 0:
        return []
    with np.errstate(all="ignore"):
        c = R @ target / squares
        left = np.sqrt(np.maximum(target @ target - c * c * squares, 0))
        close = np.flatnonzero(left <= max(1e-5, 4 * fit) * size)
    return [(int(i), float(c[i])) for i in close if np.linalg.norm(target - c[i] * R[i]) <= fit * size]
