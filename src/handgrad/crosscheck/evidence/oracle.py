"""Who checks the truth: finite differences, and the complex step where the function allows it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.evidence import Evidence, LeafEvidence
from handgrad.crosscheck.numerics import differences
from handgrad.crosscheck.subject.arguments import Leaves, largest, put, wide, widened
from handgrad.crosscheck.verdict import judge

COORDINATES = 24  # leaves up to so many elements are differenced one by one
DIRECTIONS = 3  # larger ones along so many random directions
LOOKED_AT = 8  # and at so many single elements where something may be wrong
NARROW = 2000  # elements of the output that are differenced one by one
SURE = 1e-5  # differences accuse autodiff only of an error larger than this share of the leaf's largest gradient

WORST_FIRST = (differences.JUMP, differences.SILENT, differences.KINK, differences.SMOOTH)

Index = tuple[int, ...]


@dataclass
class Kink:
    """An element of the input where the slopes to its two sides differ.

    Attributes:
      leaf: the position among the wanted leaves.
      index: of the element.
      low, high: (draws,) the gradient's bounds: any subgradient in between is right. Of a complex element the bounds
        of its conjugate, part by part.
    """

    leaf: int
    index: Index
    low: np.ndarray
    high: np.ndarray


@dataclass
class Findings:
    """What differences found out.

    Attributes:
      kinks: elements on a kink.
      blamed: (leaf, index, what autodiff said, what differences say) where autodiff is wrong.
      unsure: {position among the wanted leaves: why no verdict on that leaf can be trusted}.
      values: {(leaf, index): the gradient by differences, on every draw}.
      notes: sentences worth knowing.
    """

    kinks: list[Kink] = field(default_factory=list)
    blamed: list[tuple[int, Index, complex, complex]] = field(default_factory=list)
    unsure: dict[int, str] = field(default_factory=dict)
    values: dict[tuple[int, Index], np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def verify(evidence: Evidence) -> Findings:
    """Hold autodiff's float64 gradient against differences of the reference, and mend the evidence where it is wrong.

    The step is chosen by differences alone, before any gradient is looked at. Where autodiff is NaN or contradicts
    confident differences, their value takes its place, with their own error as slack.
    """
    findings = Findings()
    for i, leaf in enumerate(evidence.wanted):
        if leaf.value.size <= COORDINATES:
            for index in np.ndindex(leaf.value.shape):
                look(evidence, findings, i, index)
        elif not _along_directions(evidence, i):
            for index in _suspects(evidence, i):
                look(evidence, findings, i, index)
            located = any(j == i for j, *_ in findings.blamed) or any(kink.leaf == i for kink in findings.kinks)
            if not located:
                findings.unsure[i] = "autodiff and differences of the reference disagree along a random direction"
        unknown = ~np.isfinite(leaf.truth).all(0)
        if unknown.any():
            for index in list(zip(*np.nonzero(unknown), strict=True))[:LOOKED_AT]:
                look(evidence, findings, i, tuple(int(j) for j in index))
            left = int((~np.isfinite(leaf.truth).all(0)).sum())
            if left:
                findings.unsure[i] = f"autodiff is not finite at {left} of {leaf.value.size} elements"
        leaf.scale = largest(leaf.truth)
    evidence.settle()
    return findings


def look(evidence: Evidence, findings: Findings, i: int, index: Index) -> None:
    """Difference one coordinate: note a kink, or put differences in autodiff's place where it is wrong."""
    if (i, index) in findings.values:
        return
    leaf = evidence.wanted[i]
    slope, error, low, high, kind = _coordinate(evidence, i, index)
    kinks, usable = kind == differences.KINK, kind in (differences.KINK, differences.SMOOTH)
    if kind == differences.JUMP:
        findings.unsure[i] = f"the function jumps, or is steep without bound, at {list(index)}"
    findings.values[i, index] = slope if usable else np.full_like(slope, np.nan)
    if kinks:
        findings.kinks.append(Kink(i, index, low, high))
        return
    at = (slice(None), *index)
    said = leaf.truth[at]
    # What differences can't tell from nothing accuses nobody.
    bound = 10 * error + SURE * max(leaf.scale, largest(slope)) + tolerance.VANISHING * 2**-52 * leaf.natural
    with np.errstate(invalid="ignore"):
        contradicted = ~(np.abs(slope - said) <= bound)
    if usable and contradicted.any():
        k = int(np.argmax(contradicted))
        findings.blamed.append((i, index, said[k], slope[k]))
        evidence.trusted = False
        exact = _complex_step(evidence, i, index, slope, bound)
        if leaf.slack is None:
            leaf.slack = np.zeros(leaf.truth.shape)
        leaf.slack[at] = 0.0 if exact is not None else 10 * error + 1e-7 * largest(slope)
        leaf.truth[at] = slope if exact is None else exact


def on_a_kink(evidence: Evidence, findings: Findings) -> None:
    """Look at the elements that are wrong in large leaves: those on a kink are a convention, not an error."""
    for i, leaf in enumerate(evidence.wanted):
        if leaf.value.size <= COORDINATES:
            continue
        bad = judge.wrong(leaf, judge.stack(evidence.hand, i))
        if bad is None or not bad.any():
            continue
        elements = [tuple(int(j) for j in index) for index in zip(*np.nonzero(bad.any(0)), strict=True)]
        for index in elements[:: max(1, len(elements) // (4 * LOOKED_AT))]:
            look(evidence, findings, i, index)


def pardon(evidence: Evidence, findings: Findings) -> None:
    """At a kink, autodiff's slope is one of many: leave those elements out of the comparison, and with them the wrong
    ones of the same value in a leaf too large for each to be looked at."""
    for kink in findings.kinks:
        leaf = evidence.wanted[kink.leaf]
        if leaf.slack is None:
            leaf.slack = np.zeros(leaf.truth.shape)
        leaf.slack[(slice(None), *kink.index)] = np.inf
    for i, leaf in enumerate(evidence.wanted):
        values = [leaf.value[kink.index] for kink in findings.kinks if kink.leaf == i]
        bad = judge.wrong(leaf, judge.stack(evidence.hand, i))
        if values and bad is not None and bad.any() and leaf.slack is not None and leaf.value.size > COORDINATES:
            alike = bad.any(0) & np.isin(leaf.value, np.array(values))
            leaf.slack[:, alike] = np.inf
            if alike.any():
                findings.notes.append(f"{leaf.name}: {int(alike.sum())} more elements of a kink's value not compared")


def accepts(evidence: Evidence, kink: Kink) -> bool:
    """Whether the gradient by hand lies between the two slopes, on every draw."""
    hand = judge.stack(evidence.hand, kink.leaf)
    leaf = evidence.wanted[kink.leaf]
    if hand is None or hand.shape != leaf.truth.shape:
        return False
    return _between(np.conj(hand[(slice(None), *kink.index)]), kink.low, kink.high, [leaf])


def accepts_together(evidence: Evidence, kinks: list[Kink]) -> bool:
    """Whether the gradients at all kinks add up: along directions that move them together, the slope by hand lies
    between the two sides' too. (Of a maximum's gradient at a tie any share is right, and all shares make one.)"""
    positions = evidence.programs.problem.wanted
    leaves = widened(evidence.leaves)
    hands = {kink.leaf: judge.stack(evidence.hand, kink.leaf) for kink in kinks}
    involved = [evidence.wanted[i] for i in hands]
    rng = np.random.default_rng(9)
    for together in (True, False, False):
        direction: list[np.ndarray | None] = [None] * len(leaves)
        size = max(largest(leaves[positions[kink.leaf]]) for kink in kinks) or 1.0
        mine = np.zeros(len(evidence.dYs))
        for kink in kinks:
            hand, position = hands[kink.leaf], positions[kink.leaf]
            if hand is None or hand.shape != evidence.wanted[kink.leaf].truth.shape or np.iscomplexobj(hand):
                return True
            v = direction[position]
            v = np.zeros(leaves[position].shape) if v is None else v
            v[kink.index] = size if together else size * rng.choice([-1.0, 1.0])
            direction[position] = v
            mine += v[kink.index] * hand[(slice(None), *kink.index)]
        view = _View(evidence, direction, len(evidence.dYs))
        found = differences.along(view, leaves, direction)
        _, _, low, high, kind = _pulled(view.weights, [found])
        if kind in (differences.SMOOTH, differences.KINK) and not _between(
            mine / size, low / size, high / size, involved
        ):
            return False
    return True


def _between(mine: np.ndarray, low: np.ndarray, high: np.ndarray, leaves: list[LeafEvidence]) -> bool:
    # Not the leaf's tolerance: nothing of a neighbor on another side of the kink may count as noise.
    slack = max(tolerance.RATIO * leaf.autodiff_error + leaf.floor for leaf in leaves)
    slack = slack + 1e-6 * (np.abs(low) + np.abs(high))
    parts = [[np.real(a) for a in (low, mine, high)], [np.imag(a) for a in (low, mine, high)]]
    return all(bool(np.all((least - slack <= g) & (g <= most + slack))) for least, g, most in parts)


def off_kinks(evidence: Evidence, kinks: Iterable[Kink], seed: int) -> list[np.ndarray]:
    """The inputs, with the elements on a kink moved by a few hundredths of their leaf's size; in a large leaf, where
    not each was looked at, all that equal one."""
    rng = np.random.default_rng((seed, 2))
    wanted = evidence.programs.problem.wanted
    leaves = list(evidence.leaves)
    for i in {kink.leaf for kink in kinks}:
        leaf = evidence.wanted[i].value
        x = leaf.astype(wide(leaf.dtype))
        mine = [kink.index for kink in kinks if kink.leaf == i]
        on = np.zeros(leaf.shape, bool)
        for index in mine:
            on[index] = True
        if leaf.size > COORDINATES:
            on |= np.isin(x, np.array([x[index] for index in mine]))
        step = (largest(x) or 1.0) * rng.choice([-1, 1], leaf.shape) * rng.uniform(2**-5, 2**-4, leaf.shape)
        leaves[wanted[i]] = (x + np.where(on, step, 0)).astype(leaf.dtype)
    return leaves


class _View:
    """The reference's output as one flat array, small enough to difference element by element.

    Either the elements that a change of the input reaches, or, where these are many, one number for each cotangent:
    ⟨dY, Y − Y₀⟩. `weights` has a row for each cotangent: a gradient is weights · slope. `hidden` is how much of it, for
    each cotangent, rounding may hide in the elements left out.
    """

    def __init__(self, evidence: Evidence, direction: list[np.ndarray | None], draws: int):
        self.evidence = evidence
        leaves = widened(evidence.leaves)
        self.base = _flat(evidence.programs.primal(leaves))
        changed = np.zeros(self.base.shape, bool)
        for side in (2**-5, -(2**-5)):
            moved = [x if v is None else x + side * v for x, v in zip(leaves, direction, strict=True)]
            changed |= self.base != _flat(evidence.programs.primal(moved))
        reached = np.nonzero(changed)[0]
        rows = np.stack([_flat(dYs) for dYs in evidence.dYs[:draws]])
        self.projected = len(reached) > NARROW
        self.reached = reached
        self.rows = rows
        self.weights = np.eye(len(rows)) if self.projected else rows[:, reached]
        # What didn't change may have changed by less than it rounds.
        still = 0.0 if self.projected else 2**-52 * np.abs(np.nan_to_num(self.base)) * ~changed
        self.hidden = np.sum(np.abs(rows) * still, 1) / 2**-5

    def __call__(self, leaves: Leaves) -> Leaves:
        Y = _flat(self.evidence.programs.primal(leaves))
        return [self.rows @ (Y - self.base)] if self.projected else [Y[self.reached]]


def _flat(arrays: Leaves) -> np.ndarray:
    return np.concatenate([np.asarray(a).astype(wide(a.dtype)).reshape(-1) for a in arrays])


def _coordinate(evidence: Evidence, i: int, index: Index) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """The gradient's element over all draws: (slope, its error, lower and upper bound, the worst of its kinds)."""
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    unit = np.zeros_like(leaves[position])
    unit[index] = abs(leaves[position][index]) or largest(leaves[position]) or 1.0
    view = _View(evidence, put([None] * len(leaves), [position], [unit]), len(evidence.dYs))
    parts = [differences.coordinate(view, leaves, position, index)]
    if np.iscomplexobj(leaves[position]):
        parts.append(differences.coordinate(view, leaves, position, index, imaginary=True))
    slope, error, low, high, kind = _pulled(view.weights, parts)
    return slope, error + view.hidden / abs(unit[index]), low, high, kind


def _pulled(
    W: np.ndarray, parts: list[differences.Difference]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Slopes of the output, by a real and an imaginary step, pulled back by each cotangent: `_coordinate`'s result."""
    slope, error, low, high = (np.zeros(len(W), complex if len(parts) > 1 else float) for _ in range(4))
    seen = {differences.SMOOTH}
    with np.errstate(invalid="ignore"):
        for part, phase in zip(parts, (1, -1j), strict=False):
            sides = [np.real(np.where(W == 0, 0, W * side[0])) for side in (part.left, part.right)]
            slope += phase * np.sum(np.real(np.where(W == 0, 0, W * part.slope[0])), 1)
            error += np.sum(np.where(W == 0, 0, np.abs(W) * part.error[0]), 1)
            # The slopes by the imaginary part have bounds of their own: they are kept as an imaginary part.
            low += np.conj(phase) * np.sum(np.minimum(*sides), 1)
            high += np.conj(phase) * np.sum(np.maximum(*sides), 1)
            kinds = part.kind[0][np.any(W != 0, 0)]
            seen |= set(kinds.tolist())
    kind = next(k for k in WORST_FIRST if k in seen)
    if not (np.all(np.isfinite(slope)) and np.all(np.isfinite(error))):
        kind = differences.SILENT if kind != differences.JUMP else kind
    return slope, np.real(error), low, high, kind


def _along_directions(evidence: Evidence, i: int) -> bool:
    """Whether autodiff agrees with differences along random directions of one leaf; True too where they can't tell."""
    leaf, n = evidence.wanted[i], evidence.random
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    rng = np.random.default_rng((evidence.depth, i))
    size = largest(leaves[position]) or 1.0
    for _ in range(DIRECTIONS):
        v = size * rng.choice([-1.0, 1.0], leaf.value.shape)
        direction = put([None] * len(leaves), [position], [v])
        view = _View(evidence, direction, n)
        found = differences.along(view, leaves, direction)
        if np.any(found.kind[0] == differences.KINK):
            return False
        slope = np.real(view.weights @ found.slope[0])
        error = np.abs(view.weights) @ found.error[0] + view.hidden
        expected = np.real(leaf.truth[:n].reshape(n, -1) @ v.reshape(-1))
        bound = 10 * error + SURE * np.maximum(np.abs(slope), leaf.scale * size * np.sqrt(v.size))
        sure = np.isfinite(slope) & np.isfinite(error)
        if np.any(sure & ~(np.abs(slope - expected) <= bound)):
            return False
    return True


def _suspects(evidence: Evidence, i: int) -> list[Index]:
    """Elements of a large leaf to look at one by one: zeros, equal ones, wrong ones, and a few at random."""
    leaf = evidence.wanted[i]
    rng = np.random.default_rng((evidence.depth, i, 1))
    flat = leaf.value.reshape(-1).astype(wide(leaf.value.dtype))
    values, first, counts = np.unique(flat, return_index=True, return_counts=True)
    chosen = [int(j) for j in first[(counts > 1) | (values == 0)]][:LOOKED_AT]
    bad = judge.wrong(leaf, judge.stack(evidence.hand, i))
    if bad is not None:
        chosen += [int(j) for j in np.nonzero(bad.any(0).reshape(-1))[0]][:LOOKED_AT]
    chosen += [int(j) for j in rng.integers(0, flat.size, LOOKED_AT)]
    return [tuple(int(j) for j in np.unravel_index(j, leaf.value.shape)) for j in dict.fromkeys(chosen)]


def _complex_step(evidence: Evidence, i: int, index: Index, slope: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    """The element by complex step, over all draws; None unless differences bear it out."""
    programs = evidence.programs
    leaves, position = widened(evidence.leaves), programs.problem.wanted[i]
    if any(np.iscomplexobj(leaf) for leaf in leaves):
        return None
    v = np.zeros(leaves[position].shape)
    v[index] = 1.0
    found = differences.complex_step(programs.eager_primal, leaves, put([None] * len(leaves), [position], [v]))
    if found is None:
        return None
    exact = np.array(
        [sum(np.sum(np.asarray(dY, float) * s) for dY, s in zip(dYs, found, strict=True)) for dYs in evidence.dYs]
    )
    return exact if np.all(np.abs(exact - slope) <= bound) else None
