"""What the references say: the truth, what autodiff makes of it, and how far rounding alone may lead."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.draws import BASIS, cotangents
from handgrad.crosscheck.evidence.noise import neighbors, scatter
from handgrad.crosscheck.subject.arguments import Leaves, largest, wide
from handgrad.crosscheck.subject.programs import Programs


@dataclass
class LeafEvidence:
    """What is known of one wanted leaf's gradient, over all draws of the cotangent.

    Attributes:
      name, value: the argument's path and numbers.
      truth: (draws, *shape) float64 or complex128.
      autodiff: the same in the given dtype.
      scale: the largest |truth|.
      autodiff_error: the largest |autodiff − truth|.
      noise: what a neighboring input (one unit in the last place) does to autodiff's answer: the root mean square over
        neighbors, at the element where it is largest.
      floor: γ̃_k on absolute values.
      natural: the size of the terms that it is made of: |dY| |Y| / |x| as a rule; of an x of zeros, what autodiff's
        rounding tells of it.
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
      depth: the roundings of the reference's pullback, one after the other.
      coarse: the floating-point type that the reference computes in where float64 comes in; None where it is float64.
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
    depth: int
    coarse: Any
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
    # A reference that casts to float32 whatever comes in is no truth beyond float32.
    coarse = tolerance.coarse_intermediates(jaxpr)
    noise, Y_noise = neighbors(programs, leaves, dYs[:count], by_autodiff, first[1], seed)
    found = []
    for i, position in enumerate(wanted):
        dtype = leaves[position].dtype
        truth = np.stack([draw[i] for draw in in_float64])
        autodiff = np.stack([draw[i].astype(wide(dtype)) for draw in by_autodiff])
        told_apart = tolerance.coarser(dtype, coarse)
        relative, unit = tolerance.floor(told_apart, roundings), tolerance.unit_roundoff(told_apart)
        absolute, natural = absolute_values(truth, dYs, count), _natural(dYs[:count], first[2], leaves[position])
        with np.errstate(invalid="ignore"):
            autodiff_error = largest(autodiff - truth)
            terms = max(autodiff_error, noise[i]) / unit  # so large are those that autodiff rounded
            found.append(
                LeafEvidence(
                    problem.names[position],
                    np.asarray(leaves[position]),
                    truth,
                    autodiff,
                    scale=largest(truth),
                    autodiff_error=autodiff_error,
                    noise=noise[i],
                    floor=relative * absolute,
                    natural=natural or (terms if math.isfinite(terms) else 0.0),
                    unit=unit,
                    trap=~np.isfinite(truth),
                )
            )
    Ys = list(zip(*first, strict=True))
    Y_tolerances = []
    for (mine, theirs, truth), wobble in zip(Ys, Y_noise, strict=True):
        told_apart = tolerance.coarser(mine.dtype, theirs.dtype, coarse)
        relative = tolerance.floor(told_apart, roundings)
        with np.errstate(invalid="ignore"):
            error = max(largest(theirs.astype(truth.dtype) - truth), wobble)
        # Another function is meant, not a library's hundred units in the last place.
        least = min(tolerance.CLOSE * tolerance.unit_roundoff(told_apart), tolerance.CLOSEST / 16)
        bound = tolerance.RATIO * error + max(relative, least) * largest(truth)
        Y_tolerances.append(bound if rtol is None else rtol * largest(truth) + atol)
    evidence = Evidence(
        programs, leaves, dYs, count, found, Ys, Y_tolerances, by_hand, roundings, coarse, rtol=rtol, atol=atol
    )
    evidence.settle()
    _second_look(evidence, seed)
    return evidence


def _second_look(evidence: Evidence, seed: int) -> None:
    """A close call may be the function's own rounding: see how its error jumps about among inputs nearby.

    An unstable formula for the right gradient (a cancellation that autodiff's doesn't have) errs more than autodiff,
    and isn't wrong for that. Its error is another one at every input nearby; a wrong formula's changes smoothly. Only
    errors near rounding are looked at again.
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
    strays = scatter(evidence.programs, evidence.leaves, evidence.dYs[: evidence.random], seed)
    for i in close:
        evidence.wanted[i].own_noise = strays[i]
    evidence.settle()


def absolute_values(truth: np.ndarray, dYs: list[Leaves], random: int) -> float:
    """max (|Jᵀ| |dY|): the size of the terms that a gradient's element is a sum of. Without the whole Jacobian, |Jᵀ dY|
    itself must do."""
    rows = truth[random:]
    if not len(rows):
        return largest(truth)
    flat = [np.abs(np.concatenate([np.asarray(a, wide(a.dtype)).reshape(-1) for a in dY])) for dY in dYs]
    unit = [(int(np.argmax(row)), float(np.max(row))) for row in flat[random:]]
    sizes = [np.array([size[at] / height for at, height in unit]) for size in flat[:random]]
    with np.errstate(invalid="ignore"):
        return max(largest(np.tensordot(size, np.abs(rows), 1)) for size in sizes)


def _natural(dYs: list[Leaves], Ys: Leaves, leaf: Any) -> float:
    outputs = [largest(Y) for Y in Ys]
    size = max(sum(largest(np.asarray(a, wide(a.dtype))) * y for a, y in zip(dY, outputs, strict=True)) for dY in dYs)
    x = largest(np.asarray(leaf, wide(leaf.dtype)))
    return size / x if x > 0 else 0.0
