"""Inputs that a repaired gradient must be right at: those given, fresh ones, and fresh ones of other shapes.

All run in float64, the traced programs step by step: rounding leaves little open, and nothing is compiled.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.crosscheck.errors.program.program import NONE, Changes, Program, Values
from handgrad.crosscheck.errors.program.tracing import trace
from handgrad.crosscheck.errors.repair.fresh import another, lengths, normal
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, is_inexact, largest, wide, widened
from handgrad.crosscheck.subject.problem import Problem, pullback

DRAWS = 6  # cotangents for each set of inputs
SMALL = 1500  # numbers, in and out, of the inputs that are searched at; more are cut
DOUBLE, SINGLE = 2.0**-30, 2.0**-15  # the error, as a share of a leaf's largest gradient, of float64 and of float32
ASKED = 60  # questions to the reference about shapes
AXES = 8  # of one length, of which it is asked which may change alone
ROUNDING = 2.0**-20  # such a share is no more than rounding by an unstable formula
VANISHING = 2.0**-20  # of its terms: a gradient below that is nothing to compare with
SCALES = (1.0, 0.25, 3.0)  # of fresh inputs
TRIED = 6  # lengths of an axis at which the gradient has other steps
MEMORY = 2**30  # bytes of all intermediates, of all draws: a trial of more isn't made


class Trial(NamedTuple):
    """One set of inputs, and what the gradient should be there.

    Attributes:
      program: the gradient under test, traced at these shapes.
      inputs: (leaves, dYs) for each draw.
      values: of every slot, for each draw.
      truth: [draw][wanted leaf], in float64 or complex128.
      tolerances: for each leaf.
      share: the error that a right gradient may have, as a share of the leaf's largest.
    """

    program: Program
    inputs: list[tuple[Leaves, Leaves]]
    values: list[Values]
    truth: list[Leaves]
    tolerances: list[float]
    share: float

    def right(self, leaf: int, found: Any, draw: int) -> bool:
        """Whether a leaf's cotangent is right."""
        truth = self.truth[draw][leaf]
        if found.shape != truth.shape or found.dtype != truth.dtype:
            return False
        with np.errstate(all="ignore"):
            return bool(np.all(np.abs(found - truth) <= self.tolerances[leaf]))

    def wrong(self, changes: Changes, standing: Changes = NONE) -> set[int]:
        """The leaves that are wrong after these changes, over all draws."""
        found: set[int] = set()
        for draw, values in enumerate(self.values):
            if changes or standing:
                values = self.program.rerun(self.program.steps, values, {**standing, **changes})
            found |= {
                i
                for i, slot in enumerate(self.program.cotangents)
                if i not in found and not self.right(i, values[slot], draw)
            }
        return found


class Laboratory:
    """Trials of one problem.

    Attributes:
      given: the inputs given.
      failing: the leaves that are wrong there.
      finite: whether the output is finite there.
    Raises:
      ProblemError: the gradient under test or its reference can't be traced at these inputs, or is not finite there.
    """

    def __init__(self, problem: Problem, leaves: Leaves, seed: int, passing: Collection[int] = ()):
        self.problem = problem
        self.rng = np.random.default_rng((seed, 11))
        self.sites: list[str] | None = None
        self.shares = [0.0] * len(problem.wanted)
        given = self._trial(widened(leaves))
        if given is None:
            raise ProblemError(f"{problem.name} can't be traced in float64, or is too large")
        self.sites = structure(given.program)
        self.shares = [given.share] * len(problem.wanted)
        # What passes in the dtype given is right, however it rounds: in float64 it may be no better. So is an error of
        # rounding's size: what is changed to lessen that is no repair.
        for i, slot in enumerate(given.program.cotangents):
            scale = max(largest(draw[i]) for draw in given.truth) or 1.0
            pairs = [(values[slot], draw[i]) for values, draw in zip(given.values, given.truth, strict=True)]
            if all(y.shape == truth.shape and np.isfinite(y).all() for y, truth in pairs):
                off = max(largest(y - truth) for y, truth in pairs) / scale
                if i in passing or off <= ROUNDING:
                    self.shares[i] = max(self.shares[i], 4 * off)
        self.given = given._replace(tolerances=self._tolerances(given.program, given.values, given.truth))
        self.failing = self.given.wrong({})
        Ys = [values[slot] for values in self.given.values[:1] for slot in given.program.Ys]
        self.finite = all(np.isfinite(Y).all() for Y in Ys)

    def small(self) -> Trial | None:
        """The inputs to search at: those given, or cut ones that fail in the same leaves."""
        numbers = sum(np.size(x) for inputs in self.given.inputs[0] for x in inputs)
        if numbers <= SMALL:
            return self.given
        return next((trial for trial in self.others() if trial.wrong({}) == self.failing), None)

    def fresh(self) -> Iterator[Trial]:
        """Other numbers of the same shapes, near enough to those given that they should be in the function's domain;
        smaller and larger ones too where a program branches on numbers, so that another branch may be taken."""
        for scale in SCALES if "cond" in (self.sites or ()) else SCALES[:1]:
            trial = self._try([another(self.rng, leaf, np.shape(leaf), scale) for leaf in self.given.inputs[0][0]])
            if trial is not None:
                yield trial

    def others(self, turns: Sequence[int] = (0, 1)) -> Iterator[Trial]:
        """Other numbers of other shapes: in each turn every length that the functions let change is another."""
        groups = self._axes()
        for turn in turns:
            taken = {n for n, _ in groups}
            sizes: dict[tuple[int, int], int] = {}
            # What the gradient under test ties together beyond the function itself is tried last, all at once.
            tied: dict[int, list[tuple[int, int]]] = {}
            for n, group in [*groups, *((n, None) for n, _ in groups)]:
                places = tied.pop(n, []) if group is None else group
                tried = 0
                for m in lengths(n, turn) if places else ():
                    new = {**sizes, **dict.fromkeys(places, m)}
                    if m not in taken and tried < TRIED and self._accepts(new):
                        steps = self._steps(new)
                        if steps is None and group is not None:
                            tied[n] = [*tied.get(n, []), *group]
                        elif steps == self.sites:
                            sizes, taken = new, taken | {m}
                        if steps in (None, self.sites):
                            break
                        tried += 1  # a program whose steps depend on lengths has the same ones at another
            trial = self._try(self._resized(sizes)) if sizes else None
            if trial is not None:
                yield trial

    def _axes(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """(length, [(leaf, axis)]) of axes that change together: of one length, as few as the reference allows."""
        by_length: dict[int, list[tuple[int, int]]] = {}
        for i, leaf in enumerate(self.given.inputs[0][0]):
            for axis, n in enumerate(np.shape(leaf)):
                if n > 1:
                    by_length.setdefault(n, []).append((i, axis))
        found, asked = [], 0
        for n, left in by_length.items():
            for size in (1, 2, 3):
                for group in combinations(left, size):
                    possible = size < len(left) <= AXES and set(group) <= set(left) and asked < ASKED
                    asked += possible
                    if possible and self._accepts(dict.fromkeys(group, n + 1)):
                        found.append((n, list(group)))
                        left = [place for place in left if place not in group]
            found.append((n, left))
        return found

    def _resized(self, sizes: dict[tuple[int, int], int]) -> Leaves:
        leaves = self.given.inputs[0][0]
        shapes = [tuple(sizes.get((i, j)) or n for j, n in enumerate(np.shape(leaf))) for i, leaf in enumerate(leaves)]
        return [another(self.rng, leaf, shape) for leaf, shape in zip(leaves, shapes, strict=True)]

    def _accepts(self, sizes: dict[tuple[int, int], int]) -> bool:
        """Whether the reference takes these shapes."""
        try:
            jax.eval_shape(self.problem.primal, self._resized(sizes))
        except Exception:  # whatever a user's function raises
            return False
        return True

    def _steps(self, sizes: dict[tuple[int, int], int]) -> list[str] | None:
        """The steps of the gradient under test at these shapes; None where it doesn't take them."""
        leaves = self._resized(sizes)
        try:
            Ys = jax.eval_shape(self.problem.primal, leaves)
            return structure(trace(self.problem.run, leaves, [np.zeros(y.shape, wide(y.dtype)) for y in Ys]))
        except Exception:  # whatever a user's function raises
            return None

    def _try(self, leaves: Leaves) -> Trial | None:
        """A trial where the functions accept these inputs, in the same steps, and what was right stays right."""
        try:
            trial = self._trial(leaves)
        except Exception:  # whatever a user's function raises
            return None
        return trial if trial is not None and trial.wrong({}) <= self.failing else None

    def _trial(self, leaves: Leaves) -> Trial | None:
        """A trial at these inputs; None where it is too large, the truth isn't finite or the steps are others."""
        problem = self.problem
        outputs = jax.eval_shape(problem.primal, leaves)
        numbers = sum(np.size(x) for x in (*leaves, *outputs))
        dYs = [
            [normal(self.rng, np.shape(y), wide(y.dtype)) for y in outputs]
            for _ in range(DRAWS if numbers <= SMALL else 2)
        ]
        program = trace(problem.run, leaves, dYs[0])
        if self.sites not in (None, structure(program)):
            return None
        reference = trace(pullback(problem.primal, problem.wanted), leaves, dYs[0])
        if len(dYs) * (program.nbytes + reference.nbytes) > MEMORY:
            return None
        runs = [reference.run(leaves, draw) for draw in dYs]
        truth = [[values[slot] for slot in reference.cotangents] for values in runs]
        if not all(np.isfinite(array).all() for draw in truth for array in draw):
            return None
        values = [program.run(leaves, draw) for draw in dYs]
        tolerances = self._tolerances(program, values, truth)
        share = max(_share(program), _share(reference))
        return Trial(program, [(leaves, draw) for draw in dYs], values, truth, tolerances, share)

    def _tolerances(self, program: Program, values: list[Values], truth: list[Leaves]) -> list[float]:
        # A gradient that vanishes is what rounding leaves of larger terms.
        slots = [slot for step in program.backward()[1] for slot in step.outputs]
        terms = max((largest(values[0][slot]) for slot in slots if is_inexact(values[0][slot])), default=0.0)
        scales = [max(max(largest(draw[i]) for draw in truth), VANISHING * terms) for i in range(len(self.shares))]
        return [share * scale for share, scale in zip(self.shares, scales, strict=True)]


def _share(program: Program) -> float:
    """The error that a right gradient may have, as a share of the leaf's largest. A cast to 16 bits excuses nothing."""
    dtypes = {aval.dtype for step in program.steps for one in step.all() for aval in one.avals_out}
    return SINGLE if {np.dtype(np.float32), np.dtype(np.complex64)} & dtypes else DOUBLE


def structure(program: Program) -> list[str]:
    """The primitives, in order: the same where a step's site means the same step."""
    return [one.name for step in program.steps for one in step.all()]
