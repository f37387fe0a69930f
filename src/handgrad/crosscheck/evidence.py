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

    @property
    def blind(self) -> bool:
        """Whether so little would show that nothing is certain: sooner where the gradient all but vanishes."""
        return self.power > (tolerance.BLIND / 5 if self.scale <= self.vanishing else tolerance.BLIND)


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
      jaxpr: the reference's pullback in float64; depth: its roundings, one after the other.
      trusted: False where differences found autodiff of the reference wrong.
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
    trusted: bool = True
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
        # Another function is meant, not a library's hundred units in the last place.
        least = min(
            tolerance.CLOSE * tolerance.unit_roundoff(_coarser(mine.dtype, theirs.dtype)), tolerance.CLOSEST / 16
        )
        bound = tolerance.RATIO * error + max(relative, least) * largest(truth)
        Y_tolerances.append(bound if rtol is None else rtol * largest(truth) + atol)
    evidence = Evidence(
        programs, leaves, dYs, count, found, Ys, Y_tolerances, by_hand, jaxpr, roundings, rtol=rtol, atol=atol
    )
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
    """For each wanted leaf the largest second difference of its error by hand, e(x + δ) − 2 e(x) + e(x − δ), by √6.

    Of a wrong formula's smooth error little is left of that, of independent rounding errors √6 of them.
    """
    rng = np.random.default_rng((seed, 8))
    programs, found = evidence.programs, [0.0] * len(evidence.wanted)

    def errors(leaves: Leaves, dYs: Leaves) -> Leaves:
        hand, truth = programs.by_hand(leaves, dYs)[1], programs.in_float64(leaves, dYs)[1]
        return [_wide(h) - t for h, t in zip(hand, truth, strict=True)]

    for s in range(tolerance.NEARBY):
        dYs = evidence.dYs[s % evidence.random]
        here = errors(evidence.leaves, dYs)
        shaken = [_shaken(rng, leaf) for leaf in evidence.leaves]
        above, below = (errors([pair[side] for pair in shaken], dYs) for side in (0, 1))
        with np.errstate(invalid="ignore"):
            bent = [largest(a - 2 * e + b) / math.sqrt(6) for a, e, b in zip(above, here, below, strict=True)]
        found = [max(pair) for pair in zip(found, bent, strict=True)]
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
        near = [nudged(int(rng.integers(2**32)), leaf) for leaf in leaves]
        near_Ys, found = programs.by_autodiff(near, [_times(c, dY) for dY in dYs[k]])
        with np.errstate(invalid="ignore", over="ignore"):
            sums = [t + _squared(_wide(a) / c, b) for t, a, b in zip(sums, found, answers[k], strict=True)]
            Y_sums = [t + _squared(a, b) for t, a, b in zip(Y_sums, near_Ys, Ys, strict=True)]
    return [largest(np.sqrt(t / count)) for t in sums], [largest(np.sqrt(t / count)) for t in Y_sums]


def nudged(seed: int, array: Any) -> Any:
    """Each number as it is, or one unit in the last place up or down; 0 stays 0, integers stay.

    Which of the three is a matter of the number and the seed alone: what is equal stays equal, so that a tie isn't
    broken.
    """
    if not is_inexact(array):
        return array
    x = _wide(array)
    if np.iscomplexobj(x):
        real, imaginary = (nudged(seed, part.astype(np.finfo(array.dtype).dtype)) for part in (np.real(x), np.imag(x)))
        return (real + 1j * imaginary).astype(array.dtype)
    bits = np.ascontiguousarray(x).view(np.uint64)
    mixed = (bits ^ np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
    way = (mixed >> np.uint64(61)).astype(np.int64).reshape(x.shape) % 3 - 1
    _, exponent = np.frexp(x)
    unit = np.ldexp(2 * tolerance.unit_roundoff(array.dtype), exponent - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = (x + np.where(x == 0, 0, way * unit)).astype(array.dtype)
    return np.where(np.isfinite(_wide(moved)), moved, array).astype(array.dtype)


def _shaken(rng: np.random.Generator, array: Any) -> tuple[Any, Any]:
    """Each number moved up and down by at most a 64th of itself: near enough for the same formula, and far enough for
    other roundings all the way through."""
    if not is_inexact(array):
        return array, array
    share = tolerance.NEAR * rng.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore"):
        return tuple((_wide(array) * (1 + side * share)).astype(array.dtype) for side in (1, -1))


def absolute_values(truth: np.ndarray, dYs: list[Leaves], random: int) -> float:
    """max (|Jᵀ| |dY|): the size of the terms that a gradient's element is a sum of. Without the whole Jacobian, |Jᵀ dY|
    itself must do."""
    rows = truth[random:]
    if not len(rows):
        return largest(truth)
    flat = [np.abs(np.concatenate([_wide(a).reshape(-1) for a in dY])) for dY in dYs]
    unit = [(int(np.argmax(row)), float(np.max(row))) for row in flat[random:]]
    sizes = [np.array([size[at] / height for at, height in unit]) for size in flat[:random]]
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
    return size / x if x > 0 else 0.0


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
