"""What the references say: the truth, what autodiff makes of it, and how far rounding alone may lead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.subject.arguments import Leaves, largest
from handgrad.crosscheck.subject.programs import Programs


@dataclass(frozen=True)
class LeafEvidence:
    """What is known of one wanted leaf's gradient, over all draws of the cotangent.

    Attributes:
      name, value: the argument's path and numbers.
      truth: (draws, *shape) float64 or complex128; NaN where there is none.
      autodiff: the same in the given dtype.
      errors: (draws,) the largest |autodiff − truth|.
      absolutes: (draws,) the largest |Jᵀ| |dY|: the size of the terms that an element is a sum of.
      naturals: (draws,) |dY| |Y| / |x|: the size that a gradient has as a rule.
      noise: what a neighboring input (one unit in the last place) does to autodiff's answer: the root mean square over
        neighbors, at the element where it is largest.
      relative: γ̃_k of the reference's k roundings.
      unit: u, of what is compared.
      rtol: a tolerance of the user's; None: the derived one.
      own_noise: how far the error by hand scatters among inputs nearby, where it was a close call; else 0.
      slack: (draws, *shape) more that an element may be off: where differences took autodiff's place, their error;
        infinite on a kink, which is not compared. None: nowhere.
      trap: (draws, *shape) where autodiff isn't finite even in float64.
      conditioning: what a neighboring input does to the truth, where noise hides the gradient; None elsewhere.
      constant: whether the reference doesn't depend on the leaf, whatever its numbers.
      excuse: the user's atol, where it counts; added to the tolerance.
    """

    name: str
    value: np.ndarray
    truth: np.ndarray
    autodiff: np.ndarray
    errors: np.ndarray
    absolutes: np.ndarray
    naturals: np.ndarray
    noise: float
    relative: float
    unit: float
    rtol: float | None
    trap: np.ndarray
    own_noise: float = 0.0
    conditioning: float | None = None
    slack: np.ndarray | None = None
    constant: bool = False
    excuse: float = 0.0

    @cached_property
    def scale(self) -> float:
        """The largest |truth|."""
        return largest(self.truth)

    @cached_property
    def autodiff_error(self) -> float:
        """The largest |autodiff − truth|."""
        return largest(self.errors)

    @cached_property
    def floor(self) -> float:
        """γ̃_k on absolute values."""
        return self.relative * largest(self.absolutes)

    @cached_property
    def natural(self) -> float:
        """The size of the terms that it is made of; of an x of zeros, what autodiff's rounding tells of it."""
        terms = max(self.autodiff_error, self.noise) / self.unit
        return largest(self.naturals) or (terms if math.isfinite(terms) else 0.0)

    @cached_property
    def tolerance(self) -> float:
        """T: the largest error that rounding explains; or the user's."""
        if self.rtol is not None:
            return self.rtol * self.scale + self.excuse
        return tolerance.of_leaf(max(self.autodiff_error, self.noise, self.own_noise), self.floor) + self.excuse

    @cached_property
    def vanishing(self) -> float:
        """Below this, a gradient is what rounding leaves of terms of natural size."""
        return tolerance.vanishing(self.unit, self.natural)

    @property
    def cancelled(self) -> bool:
        """Whether the gradient is 0, or far below a rounding of terms of the output's size, as a saturated softmax's:
        two ways to run the same function differ by roundings alone, and show nothing. A gradient that is merely small
        beside its output is compared: that of 10⁶ + x is 1."""
        return self.scale <= self.unit * tolerance.vanishing(self.unit, self.natural * largest(self.value))

    @property
    def power(self) -> float:
        """The smallest relative error that this run would detect."""
        return self.tolerance / self.scale if self.scale > 0 else math.inf

    @property
    def blind(self) -> bool:
        """Whether only so large an error would be detected that nothing is certain: sooner where the gradient all but
        vanishes."""
        return self.power > (tolerance.BLIND / 5 if self.scale <= self.vanishing else tolerance.BLIND)

    @property
    def certain(self) -> float:
        """A gradient within this is right, however badly the reference rounds."""
        return max(self.floor, tolerance.of_leaf(self.conditioning or 0.0, self.floor))

    def at(self, draws: Sequence[int], noise: float, relative: float, unit: float) -> "LeafEvidence":
        """The same over some of the draws, with a rounding of their own."""
        k = list(draws)
        return replace(
            self,
            truth=self.truth[k],
            autodiff=self.autodiff[k],
            errors=self.errors[k],
            absolutes=self.absolutes[k],
            naturals=self.naturals[k],
            noise=noise,
            relative=relative,
            unit=unit,
            slack=None if self.slack is None else self.slack[k],
            trap=self.trap[k],
        )


class Group(NamedTuple):
    """Draws that are judged together.

    Attributes:
      draws: which.
      noises: what neighbors do to each wanted leaf.
      relatives, units: γ̃_k and u of each wanted leaf.
    """

    draws: tuple[int, ...]
    noises: tuple[float, ...]
    relatives: tuple[float, ...]
    units: tuple[float, ...]


@dataclass(frozen=True)
class OutputEvidence:
    """One leaf of the output, in float64 and otherwise.

    Attributes:
      name: its path.
      hand, autodiff, truth: its values by hand, by the reference in the given dtype, and in float64.
      tolerance: how far off it may be, absolute.
    """

    name: str
    hand: np.ndarray
    autodiff: np.ndarray
    truth: np.ndarray
    tolerance: float

    @cached_property
    def off(self) -> np.ndarray:
        """How far the output by hand is from the truth."""
        with np.errstate(invalid="ignore"):
            return np.abs(self.hand.astype(self.truth.dtype) - self.truth)

    @cached_property
    def close_call(self) -> bool:
        """Whether the difference may be the function's own rounding, or in float64 the reference's."""
        apart = largest(np.where(np.isfinite(self.off), self.off, 0))
        return self.tolerance < apart <= tolerance.close_output(largest(self.truth), self.tolerance)

    @cached_property
    def unknown(self) -> np.ndarray:
        """Where the reference isn't finite and the function under test isn't the same infinity."""
        with np.errstate(invalid="ignore"):
            return ~np.isfinite(self.truth) & ~(self.hand.astype(self.truth.dtype) == self.truth)


@dataclass(frozen=True)
class Evidence:
    """What is known at one set of inputs. Nothing changes it: what differences find out makes another one.

    Attributes:
      programs: the problem's, compiled.
      leaves: the inputs.
      dYs: the cotangents, one list for each draw.
      random: how many of the draws are random; the others are the Jacobian's rows.
      groups: the draws that are judged together.
      wanted: the leaves that are differentiated.
      outputs: the leaves of the output.
      hand: (draws, ...) for each wanted leaf, by hand.
      depth: the roundings of the reference's pullback, one after the other.
      coarse: the floating-point type that the reference computes in where float64 comes in; None where it is float64.
      trusted: False where differences found autodiff of the reference wrong.
      rtol, atol: the user's.
    """

    programs: Programs
    leaves: Leaves
    dYs: list[Leaves]
    random: int
    groups: tuple[Group, ...]
    wanted: list[LeafEvidence]
    outputs: list[OutputEvidence]
    hand: list[Leaves]
    depth: int
    coarse: Any
    trusted: bool = True
    rtol: float | None = None
    atol: float = 0.0

    @cached_property
    def batch(self) -> int | None:
        """How many examples there are: the length of axis 0 of the output or, where that is a scalar, of the input."""
        shapes = [Y.hand.shape for Y in self.outputs] + [leaf.shape for leaf in self.leaves]
        return next((shape[0] for shape in shapes if shape), None)

    @cached_property
    def parts(self) -> list["Evidence"]:
        """What is judged together, each with a tolerance of its own: this, where there is one group."""
        if len(self.groups) == 1:
            return [self]
        return [self._at(group) for group in self.groups]

    def random_part(self) -> "Evidence":
        """The same without the Jacobian's rows."""
        ways = tuple(zip(*((leaf.noise, leaf.relative, leaf.unit) for leaf in self.wanted), strict=True))
        return self._at(Group(tuple(range(self.random)), *ways))

    def with_leaf(self, i: int, **changes: Any) -> "Evidence":
        """The same with another i-th wanted leaf."""
        wanted = [replace(leaf, **changes) if j == i else leaf for j, leaf in enumerate(self.wanted)]
        return replace(self, wanted=wanted)

    def _at(self, chosen: Group) -> "Evidence":
        place = {k: position for position, k in enumerate(chosen.draws)}
        kept = [group._replace(draws=tuple(place[k] for k in group.draws if k in place)) for group in self.groups]
        each = zip(self.wanted, chosen.noises, chosen.relatives, chosen.units, strict=True)
        return replace(
            self,
            dYs=[self.dYs[k] for k in chosen.draws],
            random=sum(k < self.random for k in chosen.draws),
            groups=tuple(group for group in kept if group.draws),
            wanted=[leaf.at(chosen.draws, *ways) for leaf, *ways in each],
            hand=[self.hand[k] for k in chosen.draws],
        )
