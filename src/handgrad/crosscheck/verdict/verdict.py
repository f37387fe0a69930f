"""The verdict: one word, the one sentence why, and the culprit."""

import dataclasses
import math
import re
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.evidence import kinks, tolerance
from handgrad.crosscheck.evidence.compare import stack, wrong
from handgrad.crosscheck.evidence.contracts import FORWARD, SAME_BITS
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.evidence.oracle import Findings
from handgrad.crosscheck.report.report import Contract, Row, Verdict, number
from handgrad.crosscheck.verdict import judge

SPELLED = 8  # kinks that a report spells out
ALIKE = 1e-2  # a share of the largest: two gradients that mean the same, in whatever precision


class Decision(NamedTuple):
    """A verdict, why, and who is to blame."""

    verdict: Verdict
    reason: str = ""
    culprit: str = ""


def decide(
    evidence: Evidence, rows: list[Row], promises: list[Contract], findings: Findings, refused: list[str]
) -> Decision:
    """The verdict on what was found.

    Args:
      evidence: at the inputs given.
      rows: of all leaves, worst first.
      promises: the contracts and transforms that were looked at.
      findings: of differences.
      refused: sentences on kinks whose gradient is no subgradient.
    """
    broken = {promise.name: promise for promise in promises if promise.status == "FAIL"}
    if SAME_BITS in broken:
        return Decision("FAIL", f"called twice, it gives two answers: {broken[SAME_BITS].detail}", "nondeterminism")
    if FORWARD in broken:
        return Decision("FAIL", f"the forward pass differs from the reference: {broken[FORWARD].detail}", "forward")
    for row in rows:
        if row.status == "FAIL":
            return Decision("FAIL", f"{row.leaf}: {_headline(row)}", "hand")
    if refused:
        return Decision("FAIL", f"no subgradient: {refused[0]}", "kink")
    if broken:
        first = next(iter(broken.values()))
        return Decision("FAIL", f"{first.name}: {first.detail}", "hand")
    return _undecided(evidence, rows, promises) or _passed(evidence, findings)


def spelled(evidence: Evidence, findings: Findings) -> tuple[list[str], list[str]]:
    """(a sentence for each kink, a sentence for each where the gradient lies outside the two slopes)."""
    said, refused = [], []
    for kink in findings.kinks:
        leaf, hand = evidence.wanted[kink.leaf], stack(evidence.hand, kink.leaf)
        if hand is None or hand.shape != leaf.truth.shape:
            continue
        k = int(np.argmax(np.abs(kink.high - kink.low)))
        at = (k, *kink.index)
        place = f"{leaf.name}[{', '.join(map(str, kink.index))}]" if kink.index else leaf.name
        slopes = f"slopes from {kink.low[k]:.4g} to {kink.high[k]:.4g}"
        taken = f"{hand[at]:.4g} by hand, {leaf.truth[at]:.4g} by autodiff"
        sentence = f"{place} = {leaf.value[kink.index]:.4g} is on a kink: {slopes}, {taken}"
        said.append(sentence)
        if not kinks.accepts(evidence, kink):
            refused.append(sentence)
    if findings.kinks and not refused and not kinks.accepts_together(evidence, list(findings.kinks)):
        refused.append(f"the gradients at the kinks don't add up; {said[0]}")
    if len(said) > SPELLED:
        said = [*said[:SPELLED], f"and {len(said) - SPELLED} more"]
    return said, refused


def with_differences(evidence: Evidence, findings: Findings, row: Row) -> Row:
    """The row, with the value by differences at its element, and inconclusive where they are unsure of the leaf."""
    i = [leaf.name for leaf in evidence.wanted].index(row.leaf)
    if i in findings.unsure and row.status == "PASS":
        row = dataclasses.replace(row, status="INCONCLUSIVE", reason=findings.unsure[i])
    values = findings.values.get((i, row.index))
    if values is not None and np.isfinite(values[row.draw]):
        row = dataclasses.replace(row, by_differences=values[row.draw].item())
    return row


def notes(evidence: Evidence, findings: Findings, rows: list[Row], promises: list[Contract]) -> list[str]:
    """Sentences worth knowing, whatever the verdict."""
    failed = {row.leaf for row in rows if row.status == "FAIL"}
    found = []
    if not evidence.programs.compiles:
        found.append("the function under test needs concrete numbers: it ran step by step")
    if evidence.programs.without_autodiff:
        found.append(f"{evidence.programs.without_autodiff.rstrip('.')}: finite differences are the only reference")
    elif any(np.isnan(leaf.autodiff).any() for leaf in evidence.wanted):
        found.append("autodiff of the reference is NaN in places: the double-where trap?")
    found += evidence.programs.problem.notes
    found += _on_purpose(evidence, findings, failed)
    found += [f"called twice, it gives {one.detail}" for one in promises if one.name == SAME_BITS and one.detail]
    for leaf in evidence.wanted:
        ratio = leaf.own_noise / max(leaf.autodiff_error, leaf.noise, leaf.floor / tolerance.RATIO, 1e-300)
        if ratio > tolerance.RATIO and leaf.name not in failed:
            found.append(f"{leaf.name} rounds {ratio:.2g} × as much as autodiff does: right, by a less exact formula")
    if evidence.coarse is not None:
        words = f"the reference computes in {evidence.coarse} even where float64 comes in"
        found.append(f"{words}: nothing finer than that is compared")
    for Y in evidence.outputs:
        count = int((~np.isfinite(Y.truth)).sum())
        if count:
            found.append(f"{Y.name} isn't finite at {count} of {Y.truth.size} elements: they have no cotangent")
    names = evidence.programs.problem.wanted_names
    found += [
        f"autodiff is wrong at {names[i]}{list(index)}: {said:.4g}, differences say {differences:.4g}"
        for i, index, said, differences in findings.blamed[1:4]
    ]
    return found


def without_output(evidence: Evidence, rows: list[Row]) -> list[Row]:
    """The rows; where no element of the output is finite, a gradient that isn't either is no error: there is none."""
    if not all(Y.unknown.all() for Y in evidence.outputs):
        return rows
    names = [leaf.name for leaf in evidence.wanted]
    found = []
    for row in rows:
        leaf, hand = evidence.wanted[names.index(row.leaf)], stack(evidence.hand, names.index(row.leaf))
        bad = wrong(leaf, hand) if row.status == "FAIL" else None
        if bad is not None and hand is not None and not np.any(bad & np.isfinite(hand)):
            row = dataclasses.replace(row, status="INCONCLUSIVE", diagnosis="", reason="not finite, nor is the output")
        found.append(row)
    return judge.worst_first(found)


def _on_purpose(evidence: Evidence, findings: Findings, failed: set[str]) -> list[str]:
    """A note where a gradient is wrong by differences alone, as a straight-through estimator's is."""
    said = []
    blamed = {i for i, *_ in findings.blamed}
    for i, leaf in enumerate(evidence.wanted):
        hand = stack(evidence.hand, i)
        if leaf.name not in failed or hand is None or hand.shape != leaf.autodiff.shape:
            continue
        with np.errstate(invalid="ignore"):
            size = float(np.max(np.abs(leaf.autodiff), initial=0.0))
            agree = size > 0 and bool(np.all(np.abs(hand - leaf.autodiff) <= ALIKE * size))
        if i in blamed and agree:
            words = "by hand and by autodiff of the reference it is the same, and only differences contradict both"
            said.append(f"{leaf.name}: {words}. If it isn't the derivative on purpose, pass differences=False")
        elif size == 0 and np.any(hand != 0) and evidence.programs.problem.own_reference:
            words = "the function doesn't depend on it. If the gradient isn't the derivative on purpose"
            said.append(f"{leaf.name}: {words}, pass a reference with stop_gradient and differences=False")
    return said


def _undecided(evidence: Evidence, rows: list[Row], promises: list[Contract]) -> Decision | None:
    constant = _constant_input(evidence)
    if constant:
        return Decision("INCONCLUSIVE", constant, "input")
    if all(leaf.value.size == 0 for leaf in evidence.wanted):
        return Decision("INCONCLUSIVE", "the inputs are empty: nothing was compared", "input")
    for Y in evidence.outputs:
        if Y.unknown.any():
            at = [int(j) for j in np.argwhere(Y.unknown)[0]]
            place = f"{Y.name}{at if at else ''}"
            words = f"the reference is {Y.truth[tuple(at)]:.4g} at {place}: no gradient was compared there"
            return Decision("INCONCLUSIVE", words, "reference")
    for row in rows:
        if row.status == "INCONCLUSIVE":
            return Decision("INCONCLUSIVE", f"{row.leaf}: {row.reason}", _culprit(row.reason))
    for promise in promises:
        if promise.status == "INCONCLUSIVE":
            return Decision("INCONCLUSIVE", f"{promise.name}: {promise.detail}", "hand")
    return None


def _passed(evidence: Evidence, findings: Findings) -> Decision:
    if not findings.blamed:
        return Decision("PASS")
    i, index, said, differences = findings.blamed[0]
    place = f"{evidence.programs.problem.wanted_names[i]}{list(index) if index else ''}"
    words = f"autodiff is wrong at {place}: it says {said:.4g}, differences {differences:.4g}"
    return Decision("PASS", words, "autodiff")


def _culprit(reason: str) -> str:
    if reason == judge.UNSTABLE:
        return "reference"
    return "conditioning" if reason.startswith("ill-conditioned") else "input"


def _headline(row: Row) -> str:
    """What is wrong with a leaf: its diagnosis, where that says more than how far off it is."""
    listed = re.match(r"examples weighted .*,", row.diagnosis)
    factor = math.prod(row.shape) == 1 and re.match(r"\d+\.\d", row.diagnosis)
    return _plainly(row) if listed or factor or not row.diagnosis else row.diagnosis


def _plainly(row: Row) -> str:
    """What is wrong where no diagnosis fits."""
    if row.error != row.error:
        return f"{number(row.by_hand)} by hand at {list(row.index)}, where {number(row.by_float64)} is right"
    return f"off by {row.error:.2g} times its largest element; rounding explains {row.tolerance:.2g}"


def _constant_input(evidence: Evidence) -> str:
    """Why inputs of equal numbers prove little: a transposed or a permuted gradient is the same."""
    several = [leaf.value for leaf in evidence.wanted if leaf.value.size > 1]
    if several and all(np.all(a == a.reshape(-1)[0]) for a in several):
        zero = all(np.all(a == 0) for a in several)
        return f"the inputs are all {'zero' if zero else 'equal'}: a gradient that mixes up elements would pass"
    return ""
