"""The course of a check: evidence, differences, kinks, judgment, promises, and the negative control."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.crosscheck.errors import mutation
from handgrad.crosscheck.evidence import oracle, tolerance
from handgrad.crosscheck.evidence.contracts import contracts
from handgrad.crosscheck.evidence.evidence import Evidence, collect
from handgrad.crosscheck.evidence.transforms import transforms
from handgrad.crosscheck.report.report import Contract, Control, Report, Row, Verdict
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, is_inexact, wide
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.programs import Programs, precise
from handgrad.crosscheck.verdict import judge

KINKS = 8  # that a report spells out
CHEAP = 20_000  # numbers, in and out, up to which the negative control runs unasked


def examine(problem: Problem, settings: Settings) -> Report:
    """Check a problem at its own inputs.

    Raises:
      ProblemError: it is not a gradient at all, or a function raises.
    """
    programs = Programs(problem)
    return look(programs, problem.leaves, settings)


def look(programs: Programs, leaves: Leaves, settings: Settings) -> Report:
    """Check at these inputs, of the same shapes and dtypes as the problem's own or of others."""
    start = time.perf_counter()
    given = _study(programs, leaves, settings)
    sentences, refused = _kinks(given.evidence, given.findings)
    study, rows, findings = given, given.rows, given.findings
    if findings.kinks:
        # Off the kinks autodiff's slope is the only one: there the whole gradient is compared, those elements too.
        moved = oracle.off_kinks(given.evidence, findings.kinks, settings.seed)
        study = _study(programs, moved, settings)
        rows = _merge(study.rows, [row for row in given.rows if row.status == "FAIL"])
        findings.blamed += study.findings.blamed
    evidence = study.evidence
    failed = {row.leaf for row in rows if row.status == "FAIL"}
    promises: list[Contract] = []
    control = None
    if not any(row.by_hand.startswith("shape") for row in rows):
        promises = [*(contracts(evidence) if settings.contracts else ()), *transforms(evidence, settings.transforms)]
        if not failed and _affordable(evidence, settings):
            control = negative_control(evidence, settings.seed)
    verdict, reason, culprit = _verdict(programs.problem, rows, promises, findings, refused, leaves)
    return Report(
        name=programs.problem.name,
        verdict=verdict,
        reason=reason,
        culprit=culprit,
        rows=tuple(rows),
        contracts=tuple(promises),
        kinks=tuple(sentences),
        control=control,
        notes=tuple(_notes(programs, evidence, findings, failed)),
        settings=_settings(evidence, settings, time.perf_counter() - start),
        reproduce=_reproduce(programs.problem, leaves, settings) if verdict == "FAIL" else "",
    )


def negative_control(evidence: Evidence, seed: int, limit: int = 24) -> Control:
    """Break the gradient under test in every way that `mutation` and `program` know, and count what is seen."""
    evidence = evidence.random_part()
    programs, problem = evidence.programs, evidence.programs.problem
    values = [leaf.value for leaf in evidence.wanted]
    mutants = list(mutation.output_mutants(evidence.hand, problem.wanted_names, values, evidence.batch))
    if programs.compiles:
        rng = np.random.default_rng((seed, 6))
        stale = [_another(rng, leaf) for leaf in evidence.leaves]
        with precise(problem.x64):
            mutants += mutation.program_mutants(
                problem.run, evidence.leaves, evidence.dYs, problem.wanted_names, stale, limit, seed
            )
    return mutation.control(lambda cotangents: bool(judge.fails(evidence, cotangents)), evidence.hand, mutants)


class _Study(NamedTuple):
    """What one set of inputs tells: the evidence, what differences found out, and a row for each leaf."""

    evidence: Evidence
    findings: oracle.Findings
    rows: list[Row]


def _study(programs: Programs, leaves: Leaves, settings: Settings) -> _Study:
    evidence = collect(programs, leaves, settings.seed, settings.draws, settings.rtol, settings.atol)
    findings = oracle.Findings()
    if settings.differences:
        findings = oracle.verify(evidence)
        oracle.on_a_kink(evidence, findings)
        if findings.kinks:
            oracle.pardon(evidence, findings)
    rows = [_at(evidence, findings, row) for row in judge.rows(evidence, evidence.hand)]
    return _Study(evidence, findings, judge.worst_first(rows))


def _kinks(evidence: Evidence, findings: oracle.Findings) -> tuple[list[str], list[str]]:
    """(a sentence for each kink, a sentence for each where the gradient lies outside the two slopes)."""
    said, refused = [], []
    for kink in findings.kinks:
        leaf = evidence.wanted[kink.leaf]
        hand = judge.stack(evidence.hand, kink.leaf)
        if hand is None or hand.shape != leaf.truth.shape:
            continue
        k = int(np.argmax(np.abs(kink.high - kink.low)))
        at = (k, *kink.index)
        place = f"{leaf.name}[{', '.join(map(str, kink.index))}]" if kink.index else leaf.name
        slopes = f"slopes from {kink.low[k]:.4g} to {kink.high[k]:.4g}"
        taken = f"{hand[at]:.4g} by hand, {leaf.truth[at]:.4g} by autodiff"
        sentence = f"{place} = {leaf.value[kink.index]:.4g} is on a kink: {slopes}, {taken}"
        said.append(sentence)
        if not oracle.accepts(evidence, kink):
            refused.append(sentence)
    if findings.kinks and not refused and not oracle.accepts_together(evidence, findings.kinks):
        refused.append(f"the gradients at the kinks don't add up; {said[0]}")
    if len(said) > KINKS:
        said = [*said[:KINKS], f"and {len(said) - KINKS} more"]
    return said, refused


def _merge(rows: list[Row], at_kinks: list[Row]) -> list[Row]:
    """What fails beside the kinks at the inputs given takes the place of what was found off them."""
    worse = {row.leaf: row for row in at_kinks}
    return judge.worst_first([worse.get(row.leaf, row) for row in rows])


def _at(evidence: Evidence, findings: oracle.Findings, row: Row) -> Row:
    """The row, with what differences say at its element, and with what they can't be sure of."""
    i = [leaf.name for leaf in evidence.wanted].index(row.leaf)
    changes: dict[str, Any] = {}
    if i in findings.unsure and row.status == "PASS":
        changes |= {"status": "INCONCLUSIVE", "reason": findings.unsure[i]}
    values = findings.values.get((i, row.index))
    if values is not None and np.isfinite(values[row.draw]):
        changes["by_differences"] = judge.number(values[row.draw])
    return dataclasses.replace(row, **changes)


def _verdict(
    problem: Problem,
    rows: list[Row],
    promises: list[Contract],
    findings: oracle.Findings,
    refused: list[str],
    leaves: Leaves,
) -> tuple[Verdict, str, str]:
    """(verdict, the one sentence why, who is to blame)."""
    broken = {promise.name: promise for promise in promises if promise.status == "FAIL"}
    if "called twice gives the same bits" in broken:
        detail = broken["called twice gives the same bits"].detail
        return "FAIL", f"called twice, it gives two answers: {detail}", "nondeterminism"
    if "forward equals the reference" in broken:
        detail = broken["forward equals the reference"].detail
        return "FAIL", f"the forward pass differs from the reference: {detail}", "forward"
    for row in rows:
        if row.status == "FAIL":
            return "FAIL", f"{row.leaf}: {row.diagnosis or _plainly(row)}", "hand"
    if refused:
        return "FAIL", f"no subgradient: {refused[0]}", "kink"
    if broken:
        first = next(iter(broken.values()))
        return "FAIL", f"{first.name}: {first.detail}", "hand"
    constant = _constant_input(problem, leaves)
    if constant:
        return "INCONCLUSIVE", constant, "input"
    for row in rows:
        if row.status == "INCONCLUSIVE":
            culprit = "conditioning" if row.reason.startswith("ill-conditioned") else "input"
            return "INCONCLUSIVE", f"{row.leaf}: {row.reason}", culprit
    if findings.blamed:
        i, index, said, differences = findings.blamed[0]
        place = f"{problem.wanted_names[i]}{list(index) if index else ''}"
        return "PASS", f"autodiff is wrong at {place}: it says {said:.4g}, differences {differences:.4g}", "autodiff"
    return "PASS", "", ""


def _plainly(row: Row) -> str:
    """What is wrong where no diagnosis fits."""
    if row.error != row.error:
        return f"{row.by_hand} by hand at {list(row.index)}, where {row.by_float64} is right"
    return f"off by {row.error:.2g} of its largest element, {row.tolerance:.2g} is rounding"


def _constant_input(problem: Problem, leaves: Leaves) -> str:
    """Why inputs of equal numbers prove little: a transposed or a permuted gradient is the same."""
    arrays = [np.asarray(leaves[i]) for i in problem.wanted]
    several = [a for a in arrays if a.size > 1]
    if several and all(np.all(a == a.reshape(-1)[0]) for a in several):
        zero = all(np.all(a == 0) for a in several)
        return f"the inputs are all {'zero' if zero else 'equal'}: a gradient that mixes up elements would pass"
    return ""


def _affordable(evidence: Evidence, settings: Settings) -> bool:
    if settings.control is not None:
        return settings.control
    numbers = sum(leaf.truth.size for leaf in evidence.wanted)
    return numbers <= CHEAP


def _another(rng: np.random.Generator, leaf: Any) -> Any:
    """Other numbers of the same size, for residuals that belong to another batch."""
    if not is_inexact(leaf):
        return leaf
    a = np.asarray(leaf).astype(wide(leaf.dtype))
    return (a * rng.uniform(0.5, 1.5, a.shape)).astype(leaf.dtype)


def _notes(programs: Programs, evidence: Evidence, findings: oracle.Findings, failed: set[str]) -> list[str]:
    notes = list(findings.notes)
    if not programs.compiles:
        notes.append("the function under test needs concrete numbers: it ran step by step")
    if any(np.isnan(leaf.autodiff).any() for leaf in evidence.wanted):
        notes.append("autodiff of the reference is NaN in places: the double-where trap?")
    for leaf in evidence.wanted:
        ratio = leaf.own_noise / max(leaf.autodiff_error, leaf.noise, leaf.floor / tolerance.RATIO, 1e-300)
        if ratio > tolerance.RATIO and leaf.name not in failed:
            notes.append(f"{leaf.name} rounds {ratio:.2g} × as much as autodiff does: right, by a less exact formula")
    if evidence.coarse is not None:
        words = f"the reference computes in {evidence.coarse} even where float64 comes in"
        notes.append(f"{words}: nothing finer than that is told apart")
    notes += [
        f"autodiff is wrong at {programs.problem.wanted_names[i]}{list(index)}: {said:.4g}, differences say {found:.4g}"
        for i, index, said, found in findings.blamed[1:4]
    ]
    return notes


def _reproduce(problem: Problem, leaves: Leaves, settings: Settings) -> str:
    """One line of Python that fails again, where the inputs are few enough to be written out."""
    if sum(np.size(leaf) for leaf in leaves) > 24:
        return ""
    return problem.call(leaves, settings.seed)


def _settings(evidence: Evidence, settings: Settings, seconds: float) -> dict[str, Any]:
    problem = evidence.programs.problem
    device = jax.devices()[0]
    return {
        "reference": problem.reference,
        "dtype": str(np.dtype(settings.dtype)) if settings.dtype is not None else None,
        "seed": settings.seed,
        "cotangents": evidence.random,
        "jacobian": len(evidence.dYs) > evidence.random,
        "roundings": evidence.depth,
        "ratio": tolerance.RATIO,
        "rtol": settings.rtol,
        "atol": settings.atol,
        "device": f"{device.platform} ({device.device_kind})",
        "jax": jax.__version__,
        "seconds": round(seconds, 2),
    }


def invalid(name: str, error: ProblemError) -> Report:
    """The report on what is not a gradient at all."""
    cause = error.__cause__
    notes = (f"caused by {type(cause).__name__}: {cause}",) if cause is not None else ()
    return Report(name=name, verdict="INVALID", reason=str(error), culprit="hand", notes=notes)
