"""What checks the truth: finite differences, and the complex step where the function allows it."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.compare import stack, wrong
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.evidence.kinks import Kink
from handgrad.crosscheck.evidence.view import Index, View, element, elementwise, exact
from handgrad.crosscheck.numerics import differences
from handgrad.crosscheck.subject.arguments import largest, put, wide, widened

COORDINATES = 24  # leaves up to so many elements are differenced one by one
DIRECTIONS = 3  # larger ones along so many random directions
LOOKED_AT = 8  # and at so many single elements where something may be wrong
KINKS = 512  # elements of a large leaf that may be excused as kinks, each looked at


@dataclass(frozen=True)
class Findings:
    """What differences found out.

    Attributes:
      kinks: elements on a kink.
      blamed: (leaf, index, what autodiff said, what differences say) where autodiff is wrong.
      unsure: {position among the wanted leaves: why no verdict on that leaf is certain}.
      unseen: {position among the wanted leaves: (*shape) wrong elements that may be on a kink and were not looked at}.
      values: {(leaf, index): the gradient by differences, on every draw}.
    """

    kinks: tuple[Kink, ...] = ()
    blamed: tuple[tuple[int, Index, complex, complex], ...] = ()
    unsure: dict[int, str] = field(default_factory=dict)
    unseen: dict[int, np.ndarray] = field(default_factory=dict)
    values: dict[tuple[int, Index], np.ndarray] = field(default_factory=dict)


def verify(evidence: Evidence) -> tuple[Evidence, Findings]:
    """Compare autodiff's float64 gradient with differences of the reference.

    The step is chosen by differences alone, before any gradient is looked at.

    Returns:
      the evidence, in which the value by differences takes autodiff's place where that is NaN or contradicts confident
      differences; and what was found.
    """
    looked = _Looking(evidence)
    for i, leaf in enumerate(evidence.wanted):
        if leaf.value.size <= COORDINATES:
            for index in np.ndindex(leaf.value.shape):
                looked.at(i, index)
        elif not _along_directions(evidence, i):
            for index in _suspects(evidence, i):
                looked.at(i, index)
            located = any(j == i for j, *_ in looked.blamed) or any(kink.leaf == i for kink in looked.kinks)
            if not located:
                looked.unsure[i] = "autodiff and differences of the reference disagree along a random direction"
        for index in _elements(~np.all(np.isfinite(looked.evidence.wanted[i].truth), 0))[:LOOKED_AT]:
            looked.at(i, index)
        left = int((~np.isfinite(looked.evidence.wanted[i].truth)).any(0).sum())
        if left:
            looked.unsure[i] = f"autodiff is not finite at {left} of {leaf.value.size} elements"
    for i, leaf in enumerate(looked.evidence.wanted):
        if leaf.value.size > COORDINATES:
            _look_at_wrong(looked, i)
    return looked.result()


class _Looking:
    """Evidence while its elements are differenced one by one; `result` freezes what was found."""

    def __init__(self, evidence: Evidence):
        self.evidence = evidence
        self.kinks: list[Kink] = []
        self.blamed: list[tuple[int, Index, complex, complex]] = []
        self.unsure: dict[int, str] = {}
        self.unseen: dict[int, np.ndarray] = {}
        self.values: dict[tuple[int, Index], np.ndarray] = {}

    def result(self) -> tuple[Evidence, Findings]:
        return self.evidence, Findings(tuple(self.kinks), tuple(self.blamed), self.unsure, self.unseen, self.values)

    def at(self, i: int, index: Index) -> None:
        """Difference one element: note a kink, or replace autodiff's value where it is wrong."""
        evidence, leaf = self.evidence, self.evidence.wanted[i]
        if (i, index) in self.values or not np.isfinite(leaf.value[index].astype(wide(leaf.value.dtype))):
            return  # an infinite input has no neighbors
        found = element(evidence, i, index)
        usable = found.kind in (differences.KINK, differences.SMOOTH)
        if found.kind == differences.JUMP:
            self.unsure[i] = f"the function jumps, or is steep without bound, at {list(index)}"
        self.values[i, index] = found.slope if usable else np.full_like(found.slope, np.nan)
        if found.kind == differences.KINK:
            self.kinks.append(Kink(i, index, found.low, found.high))
            return
        at = (slice(None), *index)
        said, size = leaf.truth[at], max(leaf.scale, largest(found.slope))
        bound = tolerance.of_differences(found.error, size, leaf.natural)
        with np.errstate(invalid="ignore"):
            contradicted = ~(np.abs(found.slope - said) <= bound)
        # An error estimate as large as the leaf is no value to put in autodiff's place, nor is a tread of a staircase.
        if not usable or not contradicted.any() or largest(bound) > size or evidence.coarse or self._outside(i, at):
            return
        k = int(np.argmax(contradicted))
        self.blamed.append((i, index, said[k], found.slope[k]))
        by_complex_step = exact(evidence, i, index, found, bound)
        slack = np.zeros(leaf.truth.shape) if leaf.slack is None else leaf.slack.copy()
        slack[at] = 0.0 if by_complex_step is not None else 10 * found.error + 1e-7 * largest(found.slope)
        truth = leaf.truth.copy()
        truth[at] = found.slope if by_complex_step is None else by_complex_step
        self.evidence = replace(evidence.with_leaf(i, truth=truth, slack=slack), trusted=False)

    def on_a_kink(self, i: int, index: Index) -> bool:
        """Whether the element is on a kink, once it was looked at."""
        self.at(i, index)
        return any(kink.leaf == i and kink.index == index for kink in self.kinks)

    def _outside(self, i: int, at: tuple[slice | int, ...]) -> bool:
        """Whether autodiff has no value there because the reference itself isn't finite: nor has the function one."""
        finite = all(np.isfinite(Y.truth).all() for Y in self.evidence.outputs)
        return not finite and not np.isfinite(self.evidence.wanted[i].truth[at]).all()


def _look_at_wrong(looked: _Looking, i: int) -> None:
    """Look at the wrong elements of a large leaf: those on a kink are a convention, not an error.

    A few first: where one of them is on no kink, the leaf is wrong whatever the others are.
    """
    leaf = looked.evidence.wanted[i]
    bad = wrong(leaf, stack(looked.evidence.hand, i))
    if bad is None or not bad.any():
        return
    places = np.flatnonzero(np.any(bad, 0))
    spread = np.unravel_index(places[:: max(1, len(places) // (2 * LOOKED_AT))], leaf.value.shape)
    few = dict.fromkeys(tuple(int(j) for j in index) for index in zip(*spread, strict=True))
    if not all(looked.on_a_kink(i, index) for index in few):
        return
    elements = _elements(np.any(bad, 0))
    rest = [index for index in elements if index not in few]
    together = elementwise(looked.evidence, i, rest)
    if together is not None:
        looked.kinks += [
            Kink(i, index, one.low, one.high)
            for index, one in zip(rest, together, strict=True)
            if one.kind == differences.KINK
        ]
        return
    chosen = dict.fromkeys([*few, *rest[:KINKS]])
    if all(looked.on_a_kink(i, index) for index in chosen) and len(chosen) < len(elements):
        unseen = np.array(np.any(bad, 0))
        for index in chosen:
            unseen[index] = False
        looked.unseen[i] = unseen
        words = "differ from autodiff, as on a kink, and were not looked at"
        looked.unsure[i] = f"{int(unseen.sum())} of {leaf.value.size} elements {words}"


def _elements(where: Any) -> list[Index]:
    return [tuple(int(j) for j in index) for index in np.argwhere(where)]


def _along_directions(evidence: Evidence, i: int) -> bool:
    """Whether autodiff agrees with differences along random directions of one leaf; True too where they can't tell."""
    leaf, n = evidence.wanted[i], evidence.random
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    if evidence.coarse:
        return True
    known = np.isfinite(leaf.truth[:n]).all(0) & np.isfinite(leaves[position])  # the others are looked at anyway
    truth = np.where(known, leaf.truth[:n], 0).reshape(n, -1)
    rng = np.random.default_rng((evidence.depth, i))
    size = largest(leaves[position]) or 1.0
    for _ in range(DIRECTIONS):
        v = np.where(known, size * rng.choice([-1.0, 1.0], leaf.value.shape), 0)
        direction = put([None] * len(leaves), [position], [v])
        if not v.any():
            return True
        view = View(evidence, direction, n)
        found = differences.along(view, leaves, direction)
        if np.any(found.kind[0] == differences.KINK):
            return False
        slope = np.real(view.weights @ found.slope[0])
        error = np.abs(view.weights) @ found.error[0] + view.hidden
        expected = np.real(truth @ v.reshape(-1))
        typical = np.maximum(np.abs(slope), leaf.scale * size * np.sqrt(v.size))
        bound = tolerance.DOUBT * error + tolerance.SURE * typical
        sure = np.isfinite(slope) & np.isfinite(error)
        if np.any(sure & ~(np.abs(slope - expected) <= bound)):
            return False
    return True


def _suspects(evidence: Evidence, i: int) -> list[Index]:
    """Elements of a large leaf to look at one by one: zeros, equal ones, wrong ones, and a few at random."""
    leaf = evidence.wanted[i]
    rng = np.random.default_rng((evidence.depth, i, 1))
    numbers = leaf.value.reshape(-1).astype(wide(leaf.value.dtype))
    values, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    chosen = [int(j) for j in first[(counts > 1) | (values == 0)]][:LOOKED_AT]
    bad = wrong(leaf, stack(evidence.hand, i))
    if bad is not None:
        chosen += [int(j) for j in np.nonzero(bad.any(0).reshape(-1))[0]][:LOOKED_AT]
    chosen += [int(j) for j in rng.integers(0, numbers.size, LOOKED_AT)]
    return [tuple(int(j) for j in np.unravel_index(j, leaf.value.shape)) for j in dict.fromkeys(chosen)]
