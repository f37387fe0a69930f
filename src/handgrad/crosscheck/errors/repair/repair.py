"""The repair: the smallest change to a backward program that makes its gradient right."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import jax
import numpy as np

from handgrad.crosscheck.errors.program.program import MISFITS, Changes, Program, Step
from handgrad.crosscheck.errors.repair.candidate import Candidate
from handgrad.crosscheck.errors.repair.leaf import Budget, Leaf
from handgrad.crosscheck.errors.repair.lines import likeliest
from handgrad.crosscheck.errors.repair.names import Names
from handgrad.crosscheck.errors.repair.pairs import pairs
from handgrad.crosscheck.errors.repair.said import reports
from handgrad.crosscheck.errors.repair.search import candidates
from handgrad.crosscheck.errors.repair.source import Source
from handgrad.crosscheck.errors.repair.trials import Laboratory, Trial
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.report.report import Repair
from handgrad.crosscheck.subject.arguments import Leaves
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.held import primitives
from handgrad.crosscheck.subject.messages import raised
from handgrad.crosscheck.subject.problem import Problem

STEPS = 300_000  # that a search may run
SECONDS = 15.0  # that it may take
VERIFIED = 60  # candidates that are tried at fresh inputs, for each leaf
OF_LINE = 8  # of those on one line
ALIKE = 0.6  # changes of this much more cost are looked at, for lines that are as good
FEWER = 1.5  # and of this much, for one that repairs more leaves
UNNAMED = 0.05
ROUNDS = 3  # changes that one repair may have

Change = tuple[()] | tuple[Candidate] | tuple[Candidate, Candidate]


class Repaired(NamedTuple):
    """What was found.

    Attributes:
      laboratory, names: what was searched.
      changes: in the order in which they were found.
      leaves: that each makes right.
      left: the leaves that are still wrong.
    """

    laboratory: Laboratory
    names: Names
    changes: list[Candidate]
    leaves: list[set[int]]
    left: set[int]

    def reports(self) -> tuple[Repair, ...]:
        """The changes by file and line."""
        source = Source(self.laboratory.given.program)
        return reports(self.names, self.changes, self.leaves, self.left, source)


def repairs(
    evidence: Evidence, failing: Collection[str], seed: int, seconds: float = SECONDS
) -> tuple[tuple[Repair, ...], str]:
    """The changes that make the gradient right, one for each line, and a note where the search stopped before its end.

    Each is right at the inputs of the evidence, at fresh inputs, and at inputs of other shapes, where the functions
    accept them.

    Args:
      evidence: on the gradient as it is.
      failing: the names of the leaves that are wrong.
      seed: of the fresh inputs.
      seconds: the time that the search may take, of this process.
    """
    budget = Budget(STEPS, seconds)
    passing = {i for i, leaf in enumerate(evidence.wanted) if leaf.name not in failing}
    try:
        found = find(evidence.programs.problem, evidence.leaves, seed, passing, budget)
        reports = () if found is None else found.reports()
    except Exception as error:  # a report on a wrong gradient must come whatever a search for its repair runs into
        return (), f"the search for a repair stopped: {raised(error)}"
    whole = not budget.spent or (found is not None and not found.left)
    return reports, "" if whole else f"the search for a repair stopped after {budget.spent}, before its end"


def obstacle(evidence: Evidence) -> str:
    """Why a repair can't be searched for; "" if it can."""
    problem = evidence.programs.problem
    if not evidence.programs.compiles:
        return "JAX can't trace the gradient"
    if not evidence.trusted:
        return "there is no reference to trust"
    # A step that is a program of its own has no lines, and takes too long to run a thousand times.
    try:
        with precise(problem.x64):
            names = primitives(jax.make_jaxpr(problem.run)(evidence.leaves, evidence.dYs[0]))
    except Exception:  # whatever a user's function raises when it is traced once more
        return "JAX can't trace the gradient once more"
    kernel = any("callback" in name or name == "pallas_call" for name in names)
    return "the gradient runs a kernel or a callback" if kernel else ""


def find(
    problem: Problem, leaves: Leaves, seed: int, passing: Collection[int] = (), budget: Budget | None = None
) -> Repaired | None:
    """What `repairs` reports, as changes of the program; None where the gradient can't be traced, or isn't wrong.

    Args:
      leaves: the inputs.
      passing: the leaves that are right.
    """
    with precise(True), np.errstate(all="ignore"):  # what is tried may divide by zero
        try:
            laboratory = Laboratory(problem, leaves, seed, passing)
        except Exception:  # whatever a user's function raises when it is traced once more
            return None
        if not laboratory.failing or not laboratory.finite:
            return None
        count = len(laboratory.given.program.dYs)
        outputs = ["Y"] if count == 1 else [f"Y{i}" for i in range(count)]
        names = Names(laboratory.given.program, problem.names, outputs, problem.wanted_names, problem.wanted)
        return search(laboratory, names, budget or Budget(STEPS, SECONDS))


def search(laboratory: Laboratory, names: Names, budget: Budget) -> Repaired:
    """Repair one failing leaf after the other; what repairs several at once comes first."""
    trial = laboratory.small()
    found = Repaired(laboratory, names, [], [], set(laboratory.failing))
    if trial is None:
        return found
    trials = Trials(laboratory, trial)
    remaining, skipped = set(laboratory.failing), set()
    standing: Changes = {}
    while remaining - skipped and len(found.changes) < ROUNDS:
        leaf = min(remaining - skipped)
        change = _single(trials, leaf, remaining, standing, names, budget)
        if not change:
            skipped.add(leaf)
            continue
        standing = {**standing, **_changes(change)}
        left = trials.wrong(standing)
        fixed, remaining = remaining - left, left
        for one in change:
            found.changes.append(one)
            found.leaves.append(fixed)
    return found._replace(left=remaining)


class Trials:
    """All of the inputs that a candidate must be right at, made when first needed."""

    def __init__(self, laboratory: Laboratory, small: Trial):
        self.laboratory, self.small = laboratory, small
        self._rest: list[Trial] | None = None

    def rest(self) -> list[Trial]:
        """Those given, fresh ones, and ones of other shapes."""
        if self._rest is None:
            self._rest = [self.laboratory.given, *self.laboratory.fresh(), *self.laboratory.others()]
        return self._rest

    def wrong(self, changes: Changes) -> set[int]:
        """The leaves that are wrong at some inputs, with these changes."""
        found: set[int] = set()
        for trial in (self.small, *self.rest()):
            try:
                found |= trial.wrong(changes)
            except MISFITS:
                return set(range(len(trial.tolerances)))
        return found

    def proves(self) -> bool:
        """Whether there is more than the inputs given."""
        return len(self.rest()) > 1


def _single(trials: Trials, leaf: int, remaining: set[int], standing: Changes, names: Names, budget: Budget) -> Change:
    """The best change that makes a leaf right and breaks none; () if there is none."""
    small = trials.small
    values = [small.program.run(*inputs, changes=standing) for inputs in small.inputs] if standing else small.values
    one = Leaf(small, values, leaf, standing, names, budget)
    for tier in candidates(one):
        likely = [_as_likely(one, candidate) for candidate in tier]
        right = _right([(candidate,) for candidate in likely], trials, leaf, remaining, standing)
        if right:
            return (likeliest(one, [candidate for change in right for candidate in change]),)
    right = [] if one.misshapen else _right(pairs(one), trials, leaf, remaining, standing)
    return right[0] if right else ()


def _as_likely(leaf: Leaf, candidate: Candidate) -> Candidate:
    """With the cost of its place: in another function, or at a value that has no name and no expression to itself."""
    unnamed = candidate.slot not in leaf.names.rank and candidate.slot not in leaf.program.constants
    return candidate._replace(
        cost=candidate.cost + (0 if candidate.complete else leaf.source.unlikely(candidate.site)) + UNNAMED * unnamed
    )


def _right(found: Iterable[Change], trials: Trials, leaf: int, remaining: set[int], standing: Changes) -> list[Change]:
    """The changes that are right everywhere, of those the ones that repair most leaves, the simplest first."""
    right: list[tuple[int, Change]] = []
    steps = steps_of(trials.small.program)
    tried: Counter[tuple[str, ...]] = Counter()
    for change in sorted(found, key=_cost):
        if right:
            left, best = min(((count, _cost(other)) for count, other in right))
            if _cost(change) > best + (FEWER if left else ALIKE):
                break
        if tried.total() >= VERIFIED:
            break
        lines = tuple(str(steps[one.site].line) for one in change)
        if tried[lines] < OF_LINE:
            tried[lines] += 1
            wrong = trials.wrong({**standing, **_changes(change)})
            if leaf not in wrong and wrong <= remaining and trials.proves():
                right.append((len(wrong), change))
    fewest = min((count for count, _ in right), default=0)
    return [change for count, change in right if count == fewest]


def _changes(change: Change) -> Changes:
    return {site: function for candidate in change for site, function in candidate.changes.items()}


def _cost(change: Change) -> float:
    return sum(candidate.cost for candidate in change)


def steps_of(program: Program) -> dict[int, Step]:
    """{site: step}, those inside loops too."""
    return {one.site: one for step in program.steps for one in step.all()}
