"""The reference's output as differences take it: as few numbers as tell the gradient."""

from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.numerics import differences
from handgrad.crosscheck.subject.arguments import Leaves, largest, put, wide, widened

NARROW = 2000  # elements of the output that are differenced one by one
WORST_FIRST = (differences.JUMP, differences.SILENT, differences.KINK, differences.SMOOTH)
DIAGONALS = tuple(np.exp(1j * np.pi * np.array([0.25, 0.75])))

Index = tuple[int, ...]


class View:
    """The output as one flat array.

    Either the elements that a change of the input reaches, or, where these are many, one number for each cotangent:
    ⟨dY, Y − Y₀⟩. Outputs that aren't finite have no cotangent and are left out.

    Attributes:
      projected: whether it is one number for each cotangent.
      weights: a row for each cotangent: a gradient is weights · slope.
      hidden: how much of it, for each cotangent, rounding may hide in the elements left out.
    """

    def __init__(self, evidence: Evidence, direction: list[np.ndarray | None], draws: int):
        self._primal = evidence.programs.primal
        leaves = widened(evidence.leaves)
        self._base = flat(self._primal(leaves))
        known, changed = np.isfinite(self._base), np.zeros(self._base.shape, bool)
        for side in (2**-5, -(2**-5)):
            moved = [x if v is None else x + side * v for x, v in zip(leaves, direction, strict=True)]
            changed |= self._base != flat(self._primal(moved))
        self._reached = np.nonzero(changed & known)[0]
        self._rows = np.stack([flat(dYs) for dYs in evidence.dYs[:draws]])
        self.projected = len(self._reached) > NARROW
        self._known = known
        self.weights = np.eye(len(self._rows)) if self.projected else self._rows[:, self._reached]
        # What didn't change may have changed by less than it rounds.
        still = 0.0 if self.projected else 2**-52 * np.abs(np.where(known, self._base, 0)) * ~changed
        self.hidden = np.sum(np.abs(self._rows) * still, 1) / 2**-5

    def __call__(self, leaves: Leaves) -> Leaves:
        Y = flat(self._primal(leaves))
        if self.projected:
            return [self._rows @ np.where(self._known, Y - self._base, 0)]
        return [Y[self._reached]]


class Slopes(NamedTuple):
    """One element of a gradient by differences, over all draws.

    Attributes:
      slope, error: the element, and how far off it may be.
      low, high: the slopes to its two sides, the smaller first. Of a complex element those of its real part, and as
        imaginary part those of its imaginary part, conjugated.
      kind: the worst kind among the outputs that it reaches.
    """

    slope: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kind: int


def element(evidence: Evidence, i: int, index: Index) -> Slopes:
    """The i-th wanted leaf's gradient at one element."""
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    view, size = _looking_at(evidence, leaves, position, index)
    phases = (1, 1j) if np.iscomplexobj(leaves[position]) else (1,)
    found = pulled(view.weights, [differences.coordinate(view, leaves, position, index, phase) for phase in phases])
    return found._replace(error=found.error + view.hidden / size)


def elementwise(evidence: Evidence, i: int, indices: list[Index]) -> list[Slopes] | None:
    """What `element` says of many elements of a real leaf, moved all at once; None where the output is not a function
    of them element by element.

    That is so where the output has the leaf's shape, and moving one half of them moves no output of the other half.
    """
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    x, outputs = leaves[position], evidence.outputs
    if not indices or np.iscomplexobj(x) or len(outputs) != 1 or outputs[0].truth.shape != x.shape:
        return None
    on = np.zeros(x.shape, bool)
    on[tuple(np.transpose(indices))] = True
    size = largest(x) or 1.0
    half = on & (np.random.default_rng(12).random(x.shape) < 0.5)
    base = evidence.programs.primal(leaves)[0]
    for part in (half, on & ~half):
        moved = evidence.programs.primal(put(leaves, [position], [x + 2**-5 * size * part]))[0]
        if np.any((moved != base) & ~part):
            return None
    direction = put([None] * len(leaves), [position], [size * on])
    found = differences.along(evidence.programs.primal, leaves, direction)
    rows = np.stack([np.asarray(dYs[0], wide(dYs[0].dtype)) for dYs in evidence.dYs])
    found_at = [_one(found, index, size) for index in indices]
    return [pulled(rows[(slice(None), *index)][:, None], [one]) for index, one in zip(indices, found_at, strict=True)]


def diagonals(evidence: Evidence, i: int, index: Index) -> list[tuple[complex, np.ndarray, np.ndarray]]:
    """(direction, low, high) of a complex element moved aslant: what its two parts alone don't tell of a kink."""
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    view, _ = _looking_at(evidence, leaves, position, index)
    found = []
    for phase in DIAGONALS:
        slopes = pulled(view.weights, [differences.coordinate(view, leaves, position, index, complex(phase))])
        if slopes.kind in (differences.KINK, differences.SMOOTH):
            found.append((complex(phase), slopes.low, slopes.high))
    return found


def pulled(W: np.ndarray, parts: list[differences.Difference]) -> Slopes:
    """Slopes of the output, by a real and an imaginary step, pulled back by each cotangent."""
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
    return Slopes(slope, np.real(error), low, high, kind)


def exact(evidence: Evidence, i: int, index: Index, found: Slopes, bound: np.ndarray) -> np.ndarray | None:
    """The element by complex step, over all draws; None unless differences confirm it."""
    programs = evidence.programs
    leaves, position = widened(evidence.leaves), programs.problem.wanted[i]
    if any(np.iscomplexobj(leaf) for leaf in leaves):
        return None
    v = np.zeros(leaves[position].shape)
    v[index] = 1.0
    stepped = differences.complex_step(programs.eager_primal, leaves, put([None] * len(leaves), [position], [v]))
    if stepped is None:
        return None
    value = np.array(
        [sum(np.sum(np.asarray(dY, float) * s) for dY, s in zip(dYs, stepped, strict=True)) for dYs in evidence.dYs]
    )
    return value if np.all(np.abs(value - found.slope) <= bound) else None


def flat(arrays: Leaves) -> np.ndarray:
    """All numbers in one row, wide."""
    return np.concatenate([np.asarray(a).astype(wide(a.dtype)).reshape(-1) for a in arrays])


def _looking_at(evidence: Evidence, leaves: Leaves, position: int, index: Index) -> tuple[View, float]:
    """The output that one element reaches, and the size that it moves by."""
    unit = np.zeros_like(leaves[position])
    unit[index] = size = abs(leaves[position][index]) or largest(leaves[position]) or 1.0
    direction = put([None] * len(leaves), [position], [unit])
    return View(evidence, direction, len(evidence.dYs)), size


def _one(found: differences.Difference, index: Index, size: float) -> differences.Difference:
    """What differences say of one element of the output, for a step of 1 instead of `size`."""
    slope, error, left, right = ([array[0][index].reshape(1) / size] for array in found[:4])
    return differences.Difference(slope, error, left, right, [found.kind[0][index].reshape(1)])
