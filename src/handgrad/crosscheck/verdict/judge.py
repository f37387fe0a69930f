"""From numbers to a verdict: pure NumPy, so that thousands of gradients can be judged on the same evidence."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from handgrad.crosscheck.errors import Specimen, diagnose
from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.compare import overflows, stack, wrong
from handgrad.crosscheck.evidence.evidence import Evidence, LeafEvidence
from handgrad.crosscheck.report.report import Row
from handgrad.crosscheck.subject.arguments import Leaves, largest

CELLS = 64
ZERO = "the reference is zero: a gradient that is always zero would pass"
MOVED = "ill-conditioned: one unit in the last place of the input moves this gradient as much"
UNSTABLE = "the reference is unstable: it rounds by as much as the gradient, though the function is well-conditioned"


def fails(evidence: Evidence, cotangents: Sequence[Leaves]) -> list[str]:
    """The names of the leaves that are wrong."""
    found = set()
    for part, (draws, *_) in zip(evidence.parts, evidence.groups, strict=True):
        chosen = [cotangents[k] for k in draws]
        for i, leaf in enumerate(part.wanted):
            bad = wrong(leaf, stack(chosen, i))
            if bad is None or chosen[0][i].dtype != leaf.value.dtype or (bad.any() and not _excused(part, i, chosen)):
                found.add(i)
    return [evidence.wanted[i].name for i in sorted(found)]


def rows(evidence: Evidence, cotangents: Sequence[Leaves], explain: bool = True) -> list[Row]:
    """One row for each wanted leaf, worst first; of the draws that are judged together, the worst ones' row."""
    found = []
    for i in range(len(evidence.wanted)):
        of_parts = []
        for part, (draws, *_) in zip(evidence.parts, evidence.groups, strict=True):
            row = _row(part, i, [cotangents[k] for k in draws], explain)
            of_parts.append(replace(row, draw=draws[row.draw]))
        row = worst_first(_informative(of_parts))[0]
        if row.status == "FAIL" and len(of_parts) > 1:  # all draws tell more than the few that are judged together
            every = _diagnose(evidence, i, [np.asarray(draw[i]) for draw in cotangents], explain)
            row = replace(row, diagnosis=every or row.diagnosis)
        found.append(row)
    return worst_first(found)


def _informative(of_parts: list[Row]) -> list[Row]:
    """A leaf that one output doesn't depend on has the others to show for it."""
    return [row for row in of_parts if row.reason != ZERO] or of_parts


def worst_first(rows: list[Row]) -> list[Row]:
    """Rows by status, and by how far beyond its tolerance each is."""
    rank = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2, "SKIPPED": 3}

    def badness(row: Row) -> tuple[float, float]:
        excess = row.error / row.tolerance if row.tolerance > 0 else math.inf
        return rank[row.status], -(math.inf if math.isnan(excess) else excess)

    return sorted(rows, key=badness)


def _row(evidence: Evidence, i: int, cotangents: Sequence[Leaves], explain: bool) -> Row:
    leaf = evidence.wanted[i]
    arrays = [np.asarray(draw[i]) for draw in cotangents]
    hand, shape, dtype = stack(cotangents, i), leaf.value.shape, leaf.value.dtype
    bad = wrong(leaf, hand)
    scale = leaf.scale or 1.0
    common: dict[str, Any] = {
        "leaf": leaf.name,
        "shape": tuple(shape),
        "dtype": str(dtype),
        "tolerance": leaf.tolerance / scale,
        "power": leaf.certain / scale if leaf.blind and evidence.rtol is None and certain(leaf, hand) else leaf.power,
    }
    if bad is None or hand is None:
        nothing: dict[str, Any] = {"rho": math.nan, "error": math.nan, "index": (), "bad": 1.0}
        nothing |= {f"by_{way}": None for way in ("hand", "autodiff", "float64", "differences")}
        came, words = arrays[0].shape, _diagnose(evidence, i, arrays, explain)
        return Row(status="FAIL", diagnosis=words, came=came, **common, **nothing)
    with np.errstate(invalid="ignore"):
        off = np.abs(hand - leaf.truth)
    if leaf.slack is not None:
        off = np.where(np.isinf(leaf.slack), 0.0, off)  # on a kink: not compared
    ranked = np.where(np.isfinite(off), off, np.where(bad, np.inf, -1.0))
    ranked = np.where(bad.any() & ~bad, -1.0, ranked)
    k, *index = np.unravel_index(int(np.argmax(ranked)), ranked.shape) if ranked.size else (0,)
    at = (k, *index)
    error = math.nan if bad.any() and not np.isfinite(off[bad]).all() else largest(off) / scale
    reference_error = max(leaf.autodiff_error, leaf.noise)
    status, reason = _status(evidence, i, cotangents, bool(bad.any()))
    wrong_dtype = arrays[0].dtype != dtype
    if wrong_dtype:
        status, reason = "FAIL", ""
    return Row(
        status=status,
        rho=error * scale / reference_error if reference_error > 0 else (0.0 if error == 0 else math.nan),
        error=error,
        index=tuple(int(j) for j in index),
        by_hand=hand[at].item() if hand.size else None,
        by_autodiff=leaf.autodiff[at].item() if hand.size else None,
        by_float64=leaf.truth[at].item() if hand.size else None,
        by_differences=None,
        bad=float(np.mean(bad.any(0))) if bad.size else 0.0,
        diagnosis=_diagnose(evidence, i, arrays, explain) if status == "FAIL" else "",
        reason=reason,
        draw=int(k),
        heat=_heat(off / (leaf.tolerance or 1e-300)) if status == "FAIL" and explain else (),
        **common,
    )


def _status(evidence: Evidence, i: int, cotangents: Sequence[Leaves], any_bad: bool) -> tuple[Any, str]:
    leaf, hand = evidence.wanted[i], stack(cotangents, i)
    if any_bad:
        excuse = _excused(evidence, i, cotangents)
        return ("INCONCLUSIVE", excuse) if excuse else ("FAIL", "")
    if hand is not None and overflows(leaf, hand).any():
        return "INCONCLUSIVE", f"it overflows: not finite in {leaf.value.dtype}, by autodiff neither"
    unknown = int((~np.isfinite(leaf.truth)).any(0).sum())
    if unknown:
        first = [int(j) for j in np.argwhere(~np.isfinite(leaf.truth).all(0))[0]]
        return "INCONCLUSIVE", f"autodiff is not finite at {unknown} of {leaf.value.size} elements, {first} among them"
    if leaf.truth.size == 0:
        return "PASS", "empty: nothing to compare"
    if leaf.scale == 0:
        return ("PASS", "zero by the reference's structure") if leaf.constant else ("INCONCLUSIVE", ZERO)
    if leaf.blind and evidence.rtol is None and certain(leaf, hand):
        return "PASS", "the reference is less exact than this"
    if leaf.blind:
        if leaf.scale <= leaf.vanishing:
            return "INCONCLUSIVE", "the reference all but vanishes: the function is constant or saturated here"
        if leaf.own_noise > max(leaf.autodiff_error, leaf.noise):
            return "INCONCLUSIVE", "ill-conditioned: its own rounding is as large as the gradient"
        if leaf.certain <= tolerance.BLIND * leaf.scale and leaf.conditioning is not None:
            return "INCONCLUSIVE", UNSTABLE
        return "INCONCLUSIVE", MOVED
    return "PASS", ""


def certain(leaf: LeafEvidence, hand: np.ndarray | None) -> bool:
    """Whether the gradient is within the floor itself: then it is right, however badly autodiff rounds."""
    if hand is None or leaf.certain > tolerance.BLIND * leaf.scale:
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.abs(hand - leaf.truth) <= leaf.certain))


def _excused(evidence: Evidence, i: int, cotangents: Sequence[Leaves]) -> str:
    """Absolute slack: why a gradient outside the tolerance can't be called wrong; it isn't called right either."""
    leaf, hand = evidence.wanted[i], stack(cotangents, i)
    if hand is None or hand.shape != leaf.truth.shape:
        return ""
    with np.errstate(invalid="ignore"):
        off = np.abs(hand - leaf.truth)
    if not np.isfinite(off[np.isfinite(leaf.truth)]).all():
        return ""
    if evidence.atol > 0 and largest(off) <= leaf.tolerance + evidence.atol:
        return f"within atol = {evidence.atol:g}: excused, but nothing is shown"
    vanishes = (leaf.blind or leaf.scale == 0) and not leaf.constant and leaf.scale <= leaf.vanishing
    if vanishes and largest(off) <= leaf.vanishing:
        return "the reference all but vanishes: the function is constant or saturated here"
    if leaf.blind and leaf.rtol is None and largest(off) <= 2 * leaf.tolerance:
        return MOVED  # noise of a size that is measured on a few neighbors alone
    return ""


def _diagnose(evidence: Evidence, i: int, arrays: list[np.ndarray], explain: bool) -> str:
    if not explain:
        return ""
    leaf, problem = evidence.wanted[i], evidence.programs.problem
    if problem.wanted[i] in problem.zeros:
        return "None, which JAX takes for zero"
    n = evidence.random

    def one(dYs: Leaves) -> np.ndarray:
        return evidence.programs.in_float64(evidence.leaves, dYs)[1][i]

    return diagnose(
        Specimen(
            leaf.name,
            arrays[:n],
            list(leaf.truth[:n]),
            leaf.tolerance,
            leaf.value,
            evidence.dYs[:n],
            sizes(evidence),
            {other.name: list(other.truth[:n]) for j, other in enumerate(evidence.wanted) if j != i},
            None if evidence.programs.without_autodiff else one,
            leaf.value.dtype,
        )
    )


def sizes(evidence: Evidence) -> dict[str, int]:
    """What a missing or surplus factor may be: the batch, and the lengths of the output's axes."""
    shapes = [Y.hand.shape for Y in evidence.outputs] + [np.shape(leaf) for leaf in evidence.leaves]
    named = {"batch": evidence.batch or 1, "elements of the output": math.prod(shapes[0])}
    found = {name: size for name, size in named.items() if size > 1}
    names = [*evidence.programs.output_names, *evidence.programs.problem.names]
    for name, shape in zip(names, shapes, strict=True):
        for axis, size in enumerate(shape):
            if size > 1 and size not in found.values():
                found[f"length of axis {axis} of {name}"] = size
    return found


def _heat(excess: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """The largest over draws, folded to two dimensions and to at most 64 × 64 cells."""
    excess = np.where(np.isfinite(excess), excess, 1e300).max(0, initial=0.0)
    if not excess.size:
        return ()
    flat = excess.reshape(-1, excess.shape[-1]) if excess.ndim else excess.reshape(1, 1)
    for axis in (0, 1):
        edges = np.linspace(0, flat.shape[axis], min(CELLS, flat.shape[axis]) + 1).astype(int)[:-1]
        flat = np.maximum.reduceat(flat, edges, axis)
    return tuple(tuple(float(f"{v:.3g}") for v in row) for row in flat)
