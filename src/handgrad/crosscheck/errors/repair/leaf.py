"""One leaf's cotangent, and what becomes of it when its backward program is changed."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.program import MISFITS, Changes, Frame, Program, Step, Values
from handgrad.crosscheck.errors.repair.linear import flat
from handgrad.crosscheck.errors.repair.names import Names
from handgrad.crosscheck.errors.repair.proposal import Visible
from handgrad.crosscheck.errors.repair.source import Source
from handgrad.crosscheck.errors.repair.trials import DOUBLE, Trial

MULTIPLE = 1e-5  # what a multiple may leave, as a share
FIT, COARSE = 1e-7, 3e-6  # what a fit may leave, as a share; where one of the programs computes in float32
ENOUGH = 16  # numbers that a fit is made to


class Budget:
    """Steps that may still be run, within so many seconds of this process: what else the machine does counts for
    nothing."""

    def __init__(self, steps: int, seconds: float):
        self._given = self._steps = steps
        self._seconds, self._start = seconds, time.process_time()

    @property
    def left(self) -> int:
        """The steps left; none when the time is over."""
        return self._steps if time.process_time() - self._start < self._seconds else 0

    @property
    def spent(self) -> str:
        """What ran out, as "15 s"; "" where there is some left."""
        if self._steps <= 0:
            return f"{self._given:,} steps"
        return "" if self.left > 0 else f"{self._seconds:g} s (repair_seconds)"

    def take(self, steps: int) -> bool:
        """Whether there is enough left for these."""
        self._steps -= steps
        return self.left > 0


class Leaf:
    """One leaf's cotangent at the inputs of the search.

    Attributes:
      standing: changes made already.
      steps: the backward steps that the cotangent needs.
      values: of every slot, for each draw that is looked at.
      misshapen: whether the cotangent has another shape or dtype than its leaf.
      fit: what a fit may leave, as a share.
      missing: the truth minus the cotangent, over all draws; empty where that is misshapen.
      multiple: the number that the cotangent must be multiplied by to be right; None where none does.
      visible: the values that changes may use.
      source: the lines of its steps.
      repeated: {site: all sites of the same expression, which a Python loop or a helper runs several times}.
    """

    def __init__(self, trial: Trial, values: list[Values], leaf: int, standing: Changes, names: Names, budget: Budget):
        self.trial, self.leaf, self.standing, self.names, self.budget = trial, leaf, standing, names, budget
        self.program: Program = trial.program
        self.result = self.program.cotangents[leaf]
        backward = {step.site for step in self.program.backward()[1]}
        self.source = Source(self.program)
        self.repeated = self.source.repeated
        self.steps = [step for step in self.program.needed([self.result]) if step.site in backward]
        self.weight = sum(step.weight for step in self.steps)
        size = max(trial.truth[0][leaf].size, 1)
        draws = min(len(values), max(1, -(-ENOUGH // size)))
        self.values, self.truth = values[:draws], [draw[leaf] for draw in trial.truth[:draws]]
        pairs = [(draw[self.result], truth) for draw, truth in zip(self.values, self.truth, strict=True)]
        alike = [(y, truth) for y, truth in pairs if (y.shape, y.dtype) == (truth.shape, truth.dtype)]
        self.fit = COARSE if trial.share > DOUBLE else FIT
        self.misshapen = len(alike) < len(pairs)
        self.missing = np.concatenate([flat(truth) - flat(y) for y, truth in alike] or [[]])
        right = np.concatenate([flat(truth) for _, truth in alike] or [[]])
        self.multiple = _multiple(right - self.missing, right) if not self.misshapen else None
        self.visible = Visible(self.program, self.values[0], names, self.steps, self.fit)

    def all_steps(self) -> list[Step]:
        """The backward steps, those inside loops too, that no change stands at."""
        return [one for step in self.steps for one in step.all() if one.site not in self.standing]

    def operations(self) -> Iterator[tuple[Step, tuple[int, ...]]]:
        """(step, the other sites of its expression) for every expression of the source."""
        seen: set[int] = set()
        for step in self.all_steps():
            alike = self.repeated.get(step.site, (step.site,))
            if not seen.intersection(alike):
                seen.update(alike)
                yield step, tuple(site for site in alike if site != step.site)

    def makes_right(self, site: int, change: Callable[[Frame], list[Any]]) -> bool:
        """Whether a change makes the leaf right in every draw."""
        return self.make_right({site: change})

    def make_right(self, changes: Changes) -> bool:
        """Whether changes make the leaf right in every draw."""
        for draw in range(len(self.values)):
            found = self.after(changes, draw)
            if found is None or not self.trial.right(self.leaf, found, draw):
                return False
        return True

    def after(self, changes: Changes, draw: int) -> Any:
        """The cotangent after changes; None where they don't fit."""
        if not self.budget.take(self.weight // 2 + 1):
            return None
        try:
            with np.errstate(all="ignore"):
                return self.program.rerun(self.steps, self.values[draw], {**self.standing, **changes})[self.result]
        except MISFITS:
            return None


def _multiple(found: np.ndarray, right: np.ndarray) -> float | None:
    """c where c × what was found is right."""
    square = float(found @ found)
    c = float(right @ found) / square if square > 0 else np.nan
    return c if np.isfinite(c) and np.linalg.norm(right - c * found) <= MULTIPLE * np.linalg.norm(right) else None
