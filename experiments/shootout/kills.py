"""Broken gradients before our checker: which it sees, which leaf it names, and what it says they are."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from handgrad.cases import Case
from handgrad.crosscheck.errors import Mutant, output_mutants, same
from handgrad.crosscheck.errors.mutants import same_array
from handgrad.crosscheck.errors.program import program_mutants
from handgrad.crosscheck.evidence import oracle
from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.subject.arguments import is_inexact, largest
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge
from shootout.signatures import SIGNATURES, is_told, says
from shootout.subjects import arguments, problem_of, subject
from shootout.sums import Sum

BAR = {"float64": 1e-9, "float32": 1e-3}  # the relative error in one leaf above which every mutant must be seen


@dataclass
class Tally(Sum):
    """What became of the mutants of one subject.

    Attributes:
      inputs: how many draws of the arguments.
      seen: mutants by level ("gross", "1e-09", "program") and kind.
      killed: those of them that the checker fails.
      survivors: (level, kind, description, relative error) of the others.
      below_bar: program mutants whose error is below the bar, and that passed.
      equivalent: mutants that leave the gradient as it was.
      misnamed: (level, kind, description, leaves that are wrong, leaves named).
      named: mutants with the right leaves named.
      diagnosed, misdiagnosed: by kind; the latter as (whether of a signature, kind, description, diagnosis).
      alarms: leaves of the right gradient that fail.
      judging, seconds: judging alone, and with the evidence.
    """

    inputs: int = 0
    seen: Counter = field(default_factory=Counter)
    killed: Counter = field(default_factory=Counter)
    survivors: list[tuple[Any, ...]] = field(default_factory=list)
    below_bar: int = 0
    equivalent: int = 0
    named: int = 0
    misnamed: list[tuple[Any, ...]] = field(default_factory=list)
    diagnosed: Counter = field(default_factory=Counter)
    misdiagnosed: list[tuple[Any, ...]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    judging: float = 0.0
    seconds: float = 0.0


def evidence_of(case: Case, dtype: str, seed: int, programs: Programs | None = None) -> Evidence:
    """The evidence on one subject's right gradient, the reference held against differences."""
    problem = problem_of(case, arguments(case, np.dtype(dtype), seed))
    return oracle.verify(collect(programs or Programs(problem), problem.leaves, seed))[0]


def levels(evidence: Evidence, bar: float, limit: int, seed: int) -> dict[str, list[Mutant]]:
    """The mutants: gross, as small as the bar, and of the program itself."""
    problem, values = evidence.programs.problem, [leaf.value for leaf in evidence.wanted]
    given = evidence.hand, problem.wanted_names, values, judge.sizes(evidence)
    rng = np.random.default_rng((seed, 6))
    stale = [_another(rng, leaf) for leaf in evidence.leaves]
    with precise(problem.x64):
        of_program = program_mutants(
            problem.run, evidence.leaves, evidence.dYs, problem.wanted_names, stale, limit, seed
        )
        return {
            "gross": list(output_mutants(*given)),
            f"{bar:g}": list(output_mutants(*given, relative=bar)),
            "program": list(of_program),
        }


def judge_subject(name: str, dtype: str, at_least: int, limit: int) -> tuple[str, str, Tally]:
    """The mutants of one subject in one dtype before the judge, on as many inputs as make `at_least` of them."""
    start, tally = time.perf_counter(), Tally()
    case, programs = subject(name), None
    while tally.inputs == 0 or sum(tally.seen.values()) < at_least:
        evidence = evidence_of(case, dtype, tally.inputs, programs).random_part()
        programs = evidence.programs
        _judge_all(tally, evidence, BAR[dtype], limit)
        tally.inputs += 1
    tally.seconds = time.perf_counter() - start
    jax.clear_caches()
    return name, dtype, tally


def _judge_all(tally: Tally, evidence: Evidence, bar: float, limit: int) -> None:
    tally.alarms += judge.fails(evidence, evidence.hand)
    for level, mutants in levels(evidence, bar, limit, tally.inputs).items():
        gross = mutants if level == "gross" else []
        for mutant in mutants:
            if mutant.equivalent or same(mutant.cotangents, evidence.hand):
                tally.equivalent += 1
                continue
            _judge(tally, evidence, level, mutant, bar)
            if level == "gross" and is_told(mutant):
                _diagnose(tally, evidence, mutant, gross)


def _judge(tally: Tally, evidence: Evidence, level: str, mutant: Mutant, bar: float) -> None:
    begun = time.perf_counter()
    named = judge.fails(evidence, mutant.cotangents)
    tally.judging += time.perf_counter() - begun
    wrong, error = _wrong(evidence, mutant)
    if not named and level == "program" and error < bar:
        tally.below_bar += 1
        return
    tally.seen[level, mutant.kind] += 1
    if not named:
        tally.survivors.append((level, mutant.kind, mutant.description, error))
        return
    tally.killed[level, mutant.kind] += 1
    due = {mutant.leaf} if mutant.leaf else wrong
    if set(named) <= due:
        tally.named += 1
    else:
        tally.misnamed.append((level, mutant.kind, mutant.description, sorted(due), named))


def _wrong(evidence: Evidence, mutant: Mutant) -> tuple[set[str], float]:
    """The leaves that are wrong, and the largest error as a share of its leaf's largest gradient."""
    wrong, error = set(), 0.0
    for i, leaf in enumerate(evidence.wanted):
        pairs = [(one[i], two[i]) for one, two in zip(mutant.cotangents, evidence.hand, strict=True)]
        if not all(same_array(one, two) for one, two in pairs):
            wrong.add(leaf.name)
        if any(one.shape != two.shape or not np.isfinite(one).all() for one, two in pairs):
            error = np.inf
        else:
            off = max(largest(one.astype(leaf.truth.dtype) - two.astype(leaf.truth.dtype)) for one, two in pairs)
            error = max(error, off / leaf.scale if leaf.scale else np.inf)
    return wrong, error


def _diagnose(tally: Tally, evidence: Evidence, mutant: Mutant, gross: list[Mutant]) -> None:
    """What is said of it against what is due: by its own kind, or by another kind that comes to the same numbers."""
    rows = judge.rows(evidence, mutant.cotangents)
    said = next(row.diagnosis for row in rows if row.leaf == mutant.leaf)
    others = (other for other in gross if other.leaf == mutant.leaf and is_told(other) and says(said, other))
    if says(said, mutant) or any(_alike(evidence, other, mutant) for other in others):
        tally.diagnosed[mutant.kind] += 1
    else:
        signature = mutant.kind in SIGNATURES
        tally.misdiagnosed.append((signature, mutant.kind, mutant.description, said))


def _alike(evidence: Evidence, one: Mutant, other: Mutant) -> bool:
    i = [leaf.name for leaf in evidence.wanted].index(one.leaf)
    pairs = [(a[i], b[i]) for a, b in zip(one.cotangents, other.cotangents, strict=True)]
    return all(a.shape == b.shape and np.max(np.abs(a - b)) <= evidence.wanted[i].tolerance for a, b in pairs)


def _another(rng: np.random.Generator, leaf: Any) -> Any:
    """Other numbers of the same size, for residuals that belong to another batch."""
    if not is_inexact(leaf):
        return leaf
    return np.asarray(leaf * rng.uniform(0.5, 1.5, leaf.shape)).astype(leaf.dtype)


def summary(results: list[tuple[str, str, Tally]]) -> dict[str, Any]:
    """The figures of all subjects, by dtype; what went wrong in full."""
    return {dtype: _of_dtype([(n, t) for n, d, t in results if d == dtype]) for dtype in BAR}


def _of_dtype(results: list[tuple[str, Tally]]) -> dict[str, Any]:
    whole, rules, seen, killed = Tally(), Counter(), Counter(), Counter()
    for name, tally in results:
        whole.add(tally)
        rules[subject(name).op] += sum(tally.seen.values())
    levels_seen: Counter = Counter()
    levels_killed: Counter = Counter()
    for (level, kind), count in whole.seen.items():
        levels_seen[level] += count
        levels_killed[level] += whole.killed[level, kind]
        seen[kind] += count
        killed[kind] += whole.killed[level, kind]
    right = sum(count for kind, count in whole.diagnosed.items() if kind in SIGNATURES)
    wrong = [said for signature, *said in whole.misdiagnosed if signature]
    rest = [said for signature, *said in whole.misdiagnosed if not signature]
    return {
        "subjects": len(results),
        "inputs": whole.inputs,
        "mutants": seen.total(),
        "killed": killed.total(),
        "levels": {level: {"mutants": n, "killed": levels_killed[level]} for level, n in levels_seen.items()},
        "kinds": {kind: {"mutants": n, "killed": killed[kind]} for kind, n in sorted(seen.items())},
        "rules": dict(rules),
        "survivors": whole.survivors,
        "right leaf": whole.named,
        "misnamed": whole.misnamed,
        "equivalent": whole.equivalent,
        "below the bar": whole.below_bar,
        "signatures": {"right": right, "wrong": len(wrong)},
        "further diagnoses": {"right": whole.diagnosed.total() - right, "wrong": len(rest)},
        "misdiagnosed": [list(one) for one in dict.fromkeys(map(tuple, [*wrong, *rest]))],
        "right gradients failed": whole.alarms,
        "judged per second": round(seen.total() / whole.judging) if whole.judging else 0,
        "seconds": round(whole.seconds, 1),
    }
