"""The course of a check: evidence, differences, kinks, judgment, contracts, and the negative control."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.crosscheck import errors
from handgrad.crosscheck.errors.program import program_mutants
from handgrad.crosscheck.errors.repair import obstacle, repairs
from handgrad.crosscheck.evidence import kinks, oracle, tolerance
from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.evidence.contracts import contracts, excused, without_reference
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.evidence.indices import of_repeated_indices
from handgrad.crosscheck.evidence.observe import ELEMENTS, observe
from handgrad.crosscheck.evidence.transforms import transforms
from handgrad.crosscheck.report.report import Contract, Control, Repair, Report, Row
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, is_inexact, wide
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.messages import in_short, raised, where_raised
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge
from handgrad.crosscheck.verdict.verdict import decide, notes, spelled, with_differences, without_output

REPAIRED = 1_000_000  # numbers up to which a repair is searched for by default
CHEAP = 20_000  # numbers, in and out, up to which the negative control runs by default


def examine(problem: Problem, settings: Settings, shared: dict[Any, Any] | None = None) -> Report:
    """Check a problem at its own inputs.

    Args:
      problem: the problem.
      settings: how the check runs.
      shared: float64's programs, as for `Programs`.
    Raises:
      ProblemError: it is not a gradient at all, or a function raises.
    """
    return look(Programs(problem, shared), problem.leaves, settings)


def look(programs: Programs, leaves: Leaves, settings: Settings) -> Report:
    """Check at these inputs, of the same shapes and dtypes as the problem's own or of others."""
    given = study = _study(programs, leaves, settings)
    rows, findings = given.rows, given.findings
    said, refused = spelled(given.evidence, findings)
    if findings.kinks:
        # Off the kinks autodiff's slope is the only one: there the whole gradient is compared, those elements too.
        moved = kinks.off_kinks(given.evidence, findings.kinks, settings.seed, oracle.COORDINATES)
        study = _study(programs, moved, settings)
        rows = _merge(study.rows, given)
        findings = replace(findings, blamed=(*findings.blamed, *study.findings.blamed))
    evidence = study.evidence
    promises: list[Contract] = []
    control, uncontrolled, repeated = None, "", ""
    if all(row.came is None for row in rows):
        apart = settings.nondeterminism_tolerance
        look_at = without_reference if programs.without_autodiff else contracts
        promises = [
            *given.promises,
            *(look_at(evidence, apart) if settings.contracts else ()),
            *excused(evidence, lambda evidence: transforms(evidence, settings.transforms)),
        ]
        if not any(row.status == "FAIL" for row in rows):
            control, uncontrolled = _controlled(evidence, settings)
            repeated = of_repeated_indices(evidence)
    decision = decide(given.evidence, rows, promises, findings, refused)
    failed = {row.leaf for row in rows if row.status == "FAIL"} if decision.culprit == "hand" else set()
    repair, unrepaired = _repaired(evidence, failed, settings)
    return Report(
        name=programs.problem.name,
        verdict=decision.verdict,
        reason=decision.reason,
        culprit=decision.culprit,
        rows=tuple(rows),
        contracts=tuple(promises),
        kinks=tuple(said),
        control=control,
        notes=(*filter(None, (unrepaired, uncontrolled, repeated)), *notes(evidence, findings, rows, promises)),
        settings=_settings(evidence, settings),
        reproduce=_reproduce(programs.problem, leaves, settings) if decision.verdict == "FAIL" else "",
        repair=repair,
    )


def negative_control(evidence: Evidence, seed: int, limit: int = 24) -> Control:
    """Break the gradient under test by every error of the catalogue and in its program; count what is detected."""
    evidence = evidence.random_part()
    programs, problem = evidence.programs, evidence.programs.problem
    values = [leaf.value for leaf in evidence.wanted]
    mutants = list(errors.output_mutants(evidence.hand, problem.wanted_names, values, judge.sizes(evidence)))
    if programs.compiles:
        rng = np.random.default_rng((seed, 6))
        stale = [_another(rng, leaf) for leaf in evidence.leaves]
        with precise(problem.x64):
            mutants += program_mutants(
                problem.run, evidence.leaves, evidence.dYs, problem.wanted_names, stale, limit, seed
            )
    return errors.control(lambda cotangents: bool(judge.fails(evidence, cotangents)), evidence.hand, mutants)


def invalid(name: str, error: ProblemError) -> Report:
    """The report on what is not a gradient at all."""
    cause, reason = error.__cause__, str(error)
    said = cause is None or (in_short(cause) or type(cause).__name__) in reason
    notes = [] if cause is None or said else [f"caused by {raised(cause)}"]
    place = "" if cause is None else where_raised(cause)
    notes += [f"raised at {place}"] if place else []
    return Report(name, "INVALID", reason, error.culprit, notes=tuple(notes), cause=cause)


class _Study(NamedTuple):
    """What one set of inputs tells: the evidence, what differences found out, a row for each leaf, and contracts."""

    evidence: Evidence
    findings: oracle.Findings
    rows: list[Row]
    promises: list[Contract]


def _study(programs: Programs, leaves: Leaves, settings: Settings) -> _Study:
    evidence, findings, promises = _observed(programs, leaves, settings)
    if findings.kinks:
        evidence = kinks.excuse(evidence, findings.kinks, findings.unseen)
    rows = [with_differences(evidence, findings, row) for row in judge.rows(evidence, evidence.hand)]
    return _Study(evidence, findings, without_output(evidence, judge.worst_first(rows)), promises)


def _observed(
    programs: Programs, leaves: Leaves, settings: Settings
) -> tuple[Evidence, oracle.Findings, list[Contract]]:
    """By autodiff, verified by differences; or by differences alone where JAX can't differentiate the reference."""
    given = settings.seed, settings.draws, settings.rtol, settings.atol
    if not programs.without_autodiff:
        try:
            evidence = collect(programs, leaves, *given)
            return (*(oracle.verify(evidence) if settings.differences else (evidence, oracle.Findings())), [])
        except ProblemError as error:
            if not error.in_reference or not settings.differences:
                raise
            programs.without_autodiff = str(error)
    if not settings.differences:
        words = f"{programs.without_autodiff}, and without differences there is nothing to compare with"
        raise ProblemError(f"{programs.problem.name}: {words}", "reference")
    return observe(programs, leaves, *given)


def _merge(rows: list[Row], given: _Study) -> list[Row]:
    """What fails beside the kinks at the inputs given takes the place of what was found off them, and so does what
    couldn't be decided there."""
    names = [leaf.name for leaf in given.evidence.wanted]
    worse = {
        row.leaf: row
        for row in given.rows
        if row.status == "FAIL" or (row.status == "INCONCLUSIVE" and names.index(row.leaf) in given.findings.unseen)
    }
    return judge.worst_first([row if row.status == "FAIL" else worse.get(row.leaf, row) for row in rows])


def _controlled(evidence: Evidence, settings: Settings) -> tuple[Control | None, str]:
    """The negative control, or why it is left out, as a note; nothing where the caller doesn't want it."""
    left_out = _unaffordable(evidence) if settings.control is None else ""
    if left_out or settings.control is False:
        return None, left_out
    try:
        return negative_control(evidence, settings.seed), ""
    except Exception as error:  # the gradient has passed: what breaks it on purpose must not take that back
        return None, f"the negative control stopped: {raised(error)}"


def _unaffordable(evidence: Evidence) -> str:
    # Where not every element is compared by itself, mutants would survive that directions detect.
    if evidence.programs.without_autodiff and any(leaf.value.size > ELEMENTS for leaf in evidence.wanted):
        return "the negative control was left out: not every element is compared by itself"
    large = sum(leaf.truth.size for leaf in evidence.wanted) > CHEAP
    return f"the negative control was left out: over {CHEAP:,} numbers to compare (control=True runs it)" * large


def _repaired(evidence: Evidence, failed: Collection[str], settings: Settings) -> tuple[tuple[Repair, ...], str]:
    """The repair of the leaves that failed, and a note: why none was searched for, or what stopped the search."""
    if not failed or settings.repair is False:
        return (), ""
    unsearched = _unsearched(evidence, settings)
    if unsearched:
        return (), unsearched
    return repairs(evidence, failed, settings.seed, settings.repair_seconds)


def _unsearched(evidence: Evidence, settings: Settings) -> str:
    """Why no repair is searched for, as a note; "" where one is."""
    large = settings.repair is None and sum(leaf.truth.size for leaf in evidence.wanted) > REPAIRED
    why = f"the gradient has over {REPAIRED:,} numbers (repair=True searches)" if large else obstacle(evidence)
    return f"no repair was searched for: {why}" if why else ""


def _another(rng: np.random.Generator, leaf: Any) -> Any:
    """Other numbers of the same size, for residuals that belong to another batch."""
    if not is_inexact(leaf):
        return leaf
    a = np.asarray(leaf).astype(wide(leaf.dtype))
    return (a * rng.uniform(0.5, 1.5, a.shape)).astype(leaf.dtype)


def _reproduce(problem: Problem, leaves: Leaves, settings: Settings) -> str:
    """One line of Python that fails again, where the inputs are few enough to be written out."""
    if sum(np.size(leaf) for leaf in leaves) > 24:
        return ""
    return problem.call(leaves, settings.written())


def _settings(evidence: Evidence, settings: Settings) -> dict[str, Any]:
    problem = evidence.programs.problem
    device = jax.devices()[0]
    return {
        "reference": "finite differences" if evidence.programs.without_autodiff else problem.reference,
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
    }
