"""What the references say: the truth, what autodiff makes of it, and how far rounding alone may lead."""

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handgrad.crosscheck import tolerance
from handgrad.crosscheck.arguments import Leaves, is_inexact, wide, widened
from handgrad.crosscheck.programs import Programs

BASIS = 40  # outputs up to so many elements: the whole Jacobian, one cotangent for each


@dataclass
class LeafEvidence:
    """What is known of one wanted leaf's gradient, over all draws of the cotangent.

    Attributes:
      name, value: the argument's path and numbers.
      truth: (draws, *shape) float64 or complex128.
      autodiff: the same in the given dtype.
      scale: the largest |truth|.
      autodiff_error: the largest |autodiff − truth|.
      noise: what a neighbouring input (one unit in the last place) does to autodiff's answer: the root mean square over
        neighbours, at the element where it is largest.
      floor: γ̃_k on absolute values.
      natural: |dY| |Y| / |x|, the size of the terms that a gradient is usually made of.
      slack: (draws, *shape) more that an element may be off, where differences took autodiff's place; or None.
      own_noise: how far the error by hand scatters among inputs nearby, where it was a close call; else 0.
      trap: (draws, *shape) where autodiff isn't finite even in float64.
      tolerance: what rounding explains: 3 max(autodiff_error, noise) + floor; or the user's.
    """

    name: str
    value: np.ndarray
    truth: np.ndarray
    autodiff: np.ndarray
    scale: float
    autodiff_error: float
    noise: float
    floor: float
    natural: float
    unit: float
    trap: np.ndarray
    tolerance: float = 0.0
    slack: np.ndarray | None = None
    own_noise: float = 0.0

    @property
    def vanishing(self) -> float:
        """Below this, a gradient is what rounding leaves of terms of natural size."""
        return tolerance.VANISHING * self.unit * self.natural

    @property
    def power(self) -> float:
        """The smallest relative error that shows."""
        return self.tolerance / self.scale if self.scale > 0 else math.inf


@dataclass
class Evidence:
    """What is known at one set of inputs.

    Attributes:
      programs: the problem's, compiled.
      leaves: the inputs.
      dYs: the cotangents, one list for each draw.
      random: how many of the draws are random; the others are the Jacobian's rows.
      wanted: the leaves of which a gradient is wanted.
      Ys: (by hand, by autodiff, in float64) for each leaf of the output.
      Y_tolerances: how far off the output may be, absolute.
      hand: (draws, ...) for each wanted leaf, by hand.
    """

    programs: Programs
    leaves: Leaves
    dYs: list[Leaves]
    random: int
    wanted: list[LeafEvidence]
    Ys: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    Y_tolerances: list[float]
    hand: list[Leaves]
    jaxpr: Any
    depth: int
    rtol: float | None = None
    atol: float = 0.0

    @property
    def batch(self) -> int | None:
        """How many examples there are: the length of axis 0 of the output or, where that is a scalar, of the input."""
        shapes = [Y[0].shape for Y in self.Ys] + [leaf.shape for leaf in self.leaves]
        return next((shape[0] for shape in shapes if shape), None)

    def random_part(self) -> "Evidence":
        """The same without the Jacobian's rows."""
        n = self.random
        wanted = [
            replace(
                leaf,
                truth=leaf.truth[:n],
                autodiff=leaf.autodiff[:n],
                slack=leaf.slack if leaf.slack is None else leaf.slack[:n],
                trap=leaf.trap[:n],
            )
            for leaf in self.wanted
        ]
        return replace(self, wanted=wanted, dYs=self.dYs[:n], hand=self.hand[:n])

    def settle(self) -> None:
        """Set each leaf's tolerance from what was measured, or from what the user wants."""
        for leaf in self.wanted:
            if self.rtol is None:
                error = max(leaf.autodiff_error, leaf.noise, leaf.own_noise)
                leaf.tolerance = tolerance.RATIO * error + leaf.floor
            else:
                leaf.tolerance = self.rtol * leaf.scale


def collect(
    programs: Programs,
    leaves: Leaves,
    seed: int = 0,
    draws: int = 3,
    rtol: float | None = None,
    atol: float = 0.0,
    basis: int = BASIS,
) -> Evidence:
    """Run every reference, and the function under test, on each cotangent.

    Raises:
      ProblemError: one of the functions raises.
    """
    problem = programs.problem
    wanted = problem.wanted
    dYs, count = cotangents(programs, seed, draws, leaves, basis)
    by_hand, by_autodiff, in_float64 = [], [], []
    first: list[Leaves] = []
    for dY in dYs:
        for collected, way in (
            (by_hand, programs.by_hand),
            (by_autodiff, programs.by_autodiff),
            (in_float64, programs.in_float64),
        ):
            Ys, found = way(leaves, dY)
            collected.append(found)
            if len(first) < 3:
                first.append(Ys)
    jaxpr = programs.jaxpr(leaves, dYs[0])
    roundings = tolerance.depth(jaxpr)
    noise, Y_noise = neighbours(programs, leaves, dYs[:count], by_autodiff, first[1], seed)
    found = []
    for i, position in enumerate(wanted):
        dtype = leaves[position].dtype
        truth = np.stack([draw[i] for draw in in_float64])
        autodiff = np.stack([draw[i].astype(wide(dtype)) for draw in by_autodiff])
        relative = tolerance.floor(dtype, roundings)
        absolute = absolute_values(truth, dYs, count)
        with np.errstate(invalid="ignore"):
            found.append(
                LeafEvidence(
                    problem.names[position],
                    np.asarray(leaves[position]),
                    truth,
                    autodiff,
                    scale=largest(truth),
                    autodiff_error=largest(autodiff - truth),
                    noise=noise[i],
                    floor=relative * absolute,
                    natural=_natural(dYs[:count], first[2], leaves[position]),
                    unit=tolerance.unit_roundoff(dtype),
                    trap=~np.isfinite(truth),
                )
            )
    Ys = list(zip(*first, strict=True))
    Y_tolerances = []
    for (mine, theirs, truth), wobble in zip(Ys, Y_noise, strict=True):
        relative = tolerance.floor(_coarser(mine.dtype, theirs.dtype), roundings)
        with np.errstate(invalid="ignore"):
            error = max(largest(theirs.astype(truth.dtype) - truth), wobble)
        Y_tolerances.append(tolerance.RATIO * error + relative * largest(truth))
    evidence = Evidence(programs, leaves, dYs, count, found, Ys, Y_tolerances, by_hand, jaxpr, roundings, rtol, atol)
    evidence.settle()
    _second_look(evidence, seed)
    return evidence


def _second_look(evidence: Evidence, seed: int) -> None:
    """A close call may be the function's own rounding: see how its error scatters among inputs nearby.

    An unstable formula for the right gradient (a cancellation that autodiff's doesn't have) errs more than autodiff,
    and isn't wrong for that. Its errors have another sign at every input nearby; a wrong formula's has not, so that
    scatter about the mean shows the one without the other. Only errors near rounding are looked at again.
    """
    close = []
    for i, leaf in enumerate(evidence.wanted):
        arrays = [draw[i] for draw in evidence.hand]
        if evidence.rtol is None and all(a.shape == leaf.value.shape for a in arrays):
            with np.errstate(invalid="ignore"):
                error = max(largest(a.astype(t.dtype) - t) for a, t in zip(arrays, leaf.truth, strict=True))
            size = max(leaf.scale, leaf.natural)
            if leaf.tolerance < error <= min(tolerance.CLOSE * leaf.unit, tolerance.CLOSEST) * size:
                close.append(i)
    if not close:
        return
    scatter = _scatter(evidence, seed)
    for i in close:
        evidence.wanted[i].own_noise = scatter[i]
    evidence.settle()


def _scatter(evidence: Evidence, seed: int) -> list[float]:
    """For each wanted leaf, how far its error by hand strays from its mean over inputs nearby, at most."""
    rng = np.random.default_rng((seed, 8))
    programs, errors = evidence.programs, []
    for s in range(tolerance.NEARBY):
        dYs = evidence.dYs[s % evidence.random]
        near, near_dY = ([_shaken(rng, a) for a in arrays] for arrays in (evidence.leaves, dYs))
        hand, truth = programs.by_hand(near, near_dY)[1], programs.in_float64(near, near_dY)[1]
        errors.append([h.astype(t.dtype) - t for h, t in zip(hand, truth, strict=True)])
    found = []
    for one in zip(*errors, strict=True):
        # Inputs nearby share one cotangent: a wrong formula's error is another one for another cotangent.
        groups = [np.stack(one[k :: evidence.random]) for k in range(evidence.random)]
        with np.errstate(invalid="ignore"):
            found.append(max(largest(group - group.mean(0)) for group in groups))
    return found


def cotangents(
    programs: Programs, seed: int, draws: int, leaves: Leaves, basis: int = BASIS
) -> tuple[list[Leaves], int]:
    """The cotangents to try, and how many of them are random.

    Random ones first: normal numbers, drawn by seed and the output leaf's name, so that another leaf doesn't change
    them. Where the output has several leaves, each is scaled by its own size and then also tried alone, so that a large
    one doesn't drown a small one. A small output's unit vectors follow: the rows of the whole Jacobian.
    """
    shapes, names = programs.outputs, programs.output_names
    scales = _scales(programs, leaves) if len(shapes) > 1 else [1.0] * len(shapes)
    alone = range(len(shapes)) if len(shapes) > 1 else ()
    found = []
    for k, only in enumerate([*[None] * draws, *alone]):
        found.append(
            [
                _normal((seed, zlib.crc32(name.encode()), k), y, scale if only in (None, j) else 0.0)
                for j, (name, y, scale) in enumerate(zip(names, shapes, scales, strict=True))
            ]
        )
    count = len(found)
    size = sum(math.prod(y.shape) for y in shapes)
    if 1 < size <= basis:
        for j, y in enumerate(shapes):
            units = (1, 1j) if np.dtype(wide(y.dtype)).kind == "c" else (1,)
            for flat in range(math.prod(y.shape)):
                for unit in units:
                    dYs = [np.zeros(other.shape, other.dtype) for other in shapes]
                    dYs[j].reshape(-1)[flat] = unit * scales[j]
                    found.append(dYs)
    return found, count


def neighbours(
    programs: Programs, leaves: Leaves, dYs: list[Leaves], answers: list[Leaves], Ys: Leaves, seed: int
) -> tuple[list[float], list[float]]:
    """How far autodiff's answer moves when every number that it is given moves by at most one unit in its last place,
    and when the cotangent is another multiple of itself, which draws every rounding on its way anew.

    Returns:
      for each wanted leaf, and for each leaf of the output, the root mean square over neighbours at the element where
      it is largest.
    """
    rng, count = np.random.default_rng((seed, 1)), tolerance.NEIGHBOURS
    sums: list[Any] = [0.0] * len(answers[0])
    Y_sums: list[Any] = [0.0] * len(Ys)
    for s in range(count):
        k = s % len(dYs)
        c = rng.uniform(1, 2)
        near = [nudged(rng, leaf) for leaf in leaves]
        near_Ys, found = programs.by_autodiff(near, [_times(c, dY) for dY in dYs[k]])
        with np.errstate(invalid="ignore", over="ignore"):
            sums = [t + _squared(_wide(a) / c, b) for t, a, b in zip(sums, found, answers[k], strict=True)]
            Y_sums = [t + _squared(a, b) for t, a, b in zip(Y_sums, near_Ys, Ys, strict=True)]
    return [largest(np.sqrt(t / count)) for t in sums], [largest(np.sqrt(t / count)) for t in Y_sums]


def nudged(rng: np.random.Generator, array: Any) -> Any:
    """Each number as it is, or one unit in the last place up or down; 0 stays 0, integers stay."""
    if not is_inexact(array):
        return array
    dtype = wide(array.dtype)
    step = 2 * tolerance.unit_roundoff(array.dtype)
    moved = array.astype(dtype) * (1 + step * rng.integers(-1, 2, array.shape))
    return moved.astype(array.dtype)


def _shaken(rng: np.random.Generator, array: Any) -> Any:
    """Each number moved by up to the square root of its precision: near enough for the same formula, and far enough
    for other roundings all the way through."""
    if not is_inexact(array):
        return array
    share = min(math.sqrt(2 * tolerance.unit_roundoff(array.dtype)), tolerance.NEAR)
    return (array.astype(wide(array.dtype)) * (1 + share * rng.uniform(-1, 1, array.shape))).astype(array.dtype)


def absolute_values(truth: np.ndarray, dYs: list[Leaves], random: int) -> float:
    """max (|Jᵀ| |dY|): the size of the terms that a gradient's element is a sum of. Without the whole Jacobian, |Jᵀ dY|
    itself must do."""
    rows = truth[random:]
    if not len(rows):
        return largest(truth)
    sizes = [np.concatenate([np.abs(np.asarray(a, wide(a.dtype))).reshape(-1) for a in dY]) for dY in dYs[:random]]
    if len(rows) != sizes[0].size:  # a complex output has two rows for each element
        sizes = [np.repeat(size, 2) for size in sizes]
    with np.errstate(invalid="ignore"):
        return max(largest(np.tensordot(size, np.abs(rows), 1)) for size in sizes)


def largest(array: Any) -> float:
    """max |array|, NaN left out; 0 of nothing."""
    array = np.abs(array)
    array = array[np.isfinite(array)] if not np.isfinite(np.max(array, initial=0.0)) else array
    return float(np.max(array, initial=0.0))


def _natural(dYs: list[Leaves], Ys: Leaves, leaf: Any) -> float:
    outputs = [largest(Y) for Y in Ys]
    size = max(sum(largest(np.asarray(a, wide(a.dtype))) * y for a, y in zip(dY, outputs, strict=True)) for dY in dYs)
    x = largest(np.asarray(leaf, wide(leaf.dtype)))
    return size / x if x > 0 else size


def _scales(programs: Programs, leaves: Leaves) -> list[float]:
    """For each leaf of the output the power of two that brings its largest element near 1."""
    sizes = [largest(Y) for Y in programs.primal(widened(leaves))]
    return [2.0 ** float(np.clip(-np.round(np.log2(size)), -12, 12)) if size > 0 else 1.0 for size in sizes]


def _normal(seed: tuple[int, ...], y: Any, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    numbers = scale * rng.standard_normal(y.shape)
    if np.dtype(wide(y.dtype)).kind == "c":
        numbers = numbers + 1j * scale * rng.standard_normal(y.shape)
    return np.asarray(numbers).astype(y.dtype)


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(wide(array.dtype))


def _times(c: float, dY: Any) -> Any:
    return (c * _wide(dY)).astype(dY.dtype)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(wide(a.dtype)) - b.astype(wide(b.dtype))) ** 2


def _coarser(one: Any, two: Any) -> Any:
    return one if tolerance.unit_roundoff(one) >= tolerance.unit_roundoff(two) else two
