"""Two changes at once: their effects on the cotangent add up to what is missing."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.errors.repair.candidate import Candidate, scaled
from handgrad.crosscheck.errors.repair.factors import ONE
from handgrad.crosscheck.errors.repair.leaf import Leaf
from handgrad.crosscheck.errors.repair.linear import flat
from handgrad.crosscheck.errors.repair.proposal import Proposal
from handgrad.crosscheck.errors.repair.proposals import proposals
from handgrad.crosscheck.errors.repair.spots import Spot, responses, spots
from handgrad.crosscheck.errors.repair.steps import candidate, possible

MOST = 2500  # effects that are combined
NUMBERS = 8  # of the cotangents over all draws, at least: fewer would fit anything
FOUND = 200

Made = Callable[[float], Iterator[Candidate]]


class Effect(NamedTuple):
    """What a change does to the cotangents of all draws.

    Attributes:
      numbers: the effect, times a coefficient.
      cost: of the change.
      site: of the step that it changes.
      scales: whether it scales a value: by 1 + the coefficient.
      made: the changes that have this coefficient; none where it means nothing.
    """

    numbers: np.ndarray
    cost: float
    site: int
    scales: bool
    made: Made


def pairs(leaf: Leaf) -> list[tuple[Candidate, Candidate]]:
    """Pairs of changes that make a leaf right at the inputs of the search, the simplest first."""
    missing = leaf.missing
    if missing.size < NUMBERS or not np.isfinite(missing).all():
        return []
    effects = [*_of_steps(leaf), *(effect for spot in spots(leaf) for effect in _of_spot(leaf, spot))]
    effects = sorted(effects, key=lambda effect: effect.cost)[:MOST]
    leaf.budget.take(len(effects) ** 2 * missing.size // 5000)
    found = []
    for one, other in _combined(effects, missing, leaf.fit):
        if one.site != other.site and leaf.make_right({one.site: one.change, other.site: other.change}):
            found.append((one, other))
        if len(found) >= FOUND or leaf.budget.left <= 0:
            break
    return found


def _of_steps(leaf: Leaf) -> Iterator[Effect]:
    """The catalogue's edits, each by running it."""
    right = [values[leaf.result] for values in leaf.values]
    for step in (one for one in leaf.all_steps() if one.site not in leaf.repeated):
        for edit in possible(leaf.program, step):
            changed = [leaf.after({step.site: edit.change}, draw) for draw in range(len(right))]
            if all(y is not None and y.shape == h.shape for y, h in zip(changed, right, strict=True)):
                with np.errstate(all="ignore"):
                    numbers = np.concatenate([flat(y) - flat(h) for y, h in zip(changed, right, strict=True)])
                one = candidate(leaf, step, edit)
                yield Effect(numbers, one.cost, step.site, False, _only(1.0, one))


def _of_spot(leaf: Leaf, spot: Spot) -> Iterator[Effect]:
    """A value scaled, replaced, added to."""
    returned = spot.step.name == "return"
    for tier in (0, 1) if spot.adds else ():
        kept, R = responses(leaf, spot, list(proposals(spot.place, spot.step, spot.v, leaf.visible, tier)))
        for proposal, numbers in zip(kept, R, strict=True):
            if spot.replaces and proposal.replaced == "{}":
                made = _meant(leaf, spot, proposal, scales=True)
                yield Effect(numbers, proposal.cost + 0.3, spot.place.site, True, made)
            elif spot.replaces and proposal.replaced:
                one = scaled(spot.place, returned, proposal, ONE, True)
                yield Effect(numbers - spot.own, one.cost, spot.place.site, False, _only(1.0, one))
            if tier == 0 and proposal.replaced != "{}":
                made = _meant(leaf, spot, proposal, scales=False)
                yield Effect(numbers, proposal.cost + 0.6, spot.place.site, False, made)


def _only(c: float, candidate: Candidate) -> Made:
    return lambda found: iter([candidate] if abs(found - c) <= 1e-6 else [])


def _meant(leaf: Leaf, spot: Spot, proposal: Proposal, scales: bool) -> Made:
    """A value scaled by 1 + the coefficient, or a proposal times the coefficient added."""

    def made(c: float) -> Iterator[Candidate]:
        for factor in leaf.visible.factors.meanings(1 + c if scales else c, spot.step):
            yield scaled(spot.place, spot.step.name == "return", proposal, factor, scales)

    return made


def _combined(effects: list[Effect], missing: np.ndarray, fit: float) -> Iterator[tuple[Candidate, Candidate]]:
    """Two changes whose effects, times coefficients that mean something, add up to what is missing."""
    if not effects:
        return
    U = np.stack([effect.numbers for effect in effects])
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(U, axis=1)
        usable = np.flatnonzero(np.isfinite(norms) & (norms > 1e-12 * np.max(norms[np.isfinite(norms)], initial=0.0)))
    effects, U = [effects[i] for i in usable], U[usable] / norms[usable, None]
    norms, size = norms[usable], float(np.linalg.norm(missing))
    for i, one in enumerate(effects):
        # What is left beside the first effect must be along the second.
        along = U[i + 1 :] @ U[i]
        left = missing - (U[i] @ missing) * U[i]
        rest = U[i + 1 :] @ left
        with np.errstate(all="ignore"):
            share = rest**2 / ((1 - along**2) * (left @ left))
        for j in np.flatnonzero((share > 1 - max(1e-9, fit * fit)) & (1 - along**2 > 1e-10)):
            b = rest[j] / (1 - along[j] ** 2)
            a = U[i] @ missing - b * along[j]
            other = effects[i + 1 + j]
            if np.linalg.norm(missing - a * U[i] - b * U[i + 1 + j]) <= fit * size:
                yield from _pairs_of(one, float(a / norms[i]), other, float(b / norms[i + 1 + j]))


def _pairs_of(one: Effect, a: float, other: Effect, b: float) -> Iterator[tuple[Candidate, Candidate]]:
    """The pairs of changes that have these coefficients."""
    # Where a later step scales what an earlier change has added, the earlier effect is scaled too.
    for first, second in (
        (a, b),
        *([(a / (1 + b), b)] if other.scales and b != -1 else ()),
        *([(a, b / (1 + a))] if one.scales and a != -1 else ()),
    ):
        for x in one.made(first):
            for y in other.made(second):
                yield x, y
