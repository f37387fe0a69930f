"""The cross-check on a device: each rule against autodiff and float64, as precisely as the device multiplies."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax

from accelerator.part import Part
from handgrad.cases import Case, first_rows
from handgrad.cli.whole import LIBRARY
from handgrad.crosscheck import Report, Settings
from handgrad.crosscheck.check import check_in_dtypes

FULL, TF32, BFLOAT16 = "float32", "float32, TF32", "bfloat16"
MODES = (FULL, TF32, BFLOAT16)
# what isn't of this device is left to `handgrad check` on a CPU
FEW: Any = {"transforms": (), "control": False, "repair": False, "differences": False, "contracts": False}
ROUNDED = 2.0**-8  # of the largest gradient: some roundings of TF32's 11 bits


def order() -> list[Case]:
    """Each rule's first inputs, then all the others."""
    leading = list(first_rows(LIBRARY).values())
    return leading[::-1] + [case for case in LIBRARY if case not in leading]


def run(part: Part, cases: Sequence[Case]) -> None:
    """Check these cases, each in all modes; in threads, since XLA compiles outside Python's lock."""
    rows: dict[str, dict[str, Any]] = {}

    def one(case: Case) -> None:
        if found := part.attempt(str(case), lambda: check(case)):
            rows[str(case)] = found

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(one, cases):
            part.write(rows=dict(rows), verdicts=verdicts(rows))


def verdicts(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often each verdict in each mode."""
    counts: dict[str, dict[str, int]] = {mode: {} for mode in MODES}
    for row in list(rows.values()):
        for mode, found in row.items():
            counts[mode][found["verdict"]] = counts[mode].get(found["verdict"], 0) + 1
    return counts


def check(case: Case) -> dict[str, dict[str, Any]]:
    """A case in all modes.

    The checker asks for full precision; TF32 is asked for again inside of the rule and of the reference, so that both
    round alike, and the tolerance is what autodiff's own error makes it, or some roundings.
    """
    reference = partial(case.peer, **case.of_values) if case.peer else case.expected
    in_both = [Settings(dtype=dtype, **FEW) for dtype in ("float32", "bfloat16")]
    in_tf32 = [Settings(dtype="float32", rtol=rtol, **FEW) for rtol in (None, ROUNDED)]
    full, low = _reports(case, case.settled, reference, in_both)
    derived, rounded = _reports(case, tuple(map(rounding, case.settled)), rounding(reference), in_tf32)
    reports = full, derived if derived.ok else rounded, low
    return {mode: in_short(report) for mode, report in zip(MODES, reports, strict=True)}


def _reports(case: Case, rule: Any, reference: Callable[..., Any], settings: Sequence[Settings]) -> list[Report]:
    return check_in_dtypes(rule, *case.arguments(), reference=reference, name=str(case), settings=settings)


def rounding(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with matrix products in TF32, where the device has it."""

    def in_tf32(*args: Any) -> Any:
        with jax.default_matmul_precision("tensorfloat32"):
            return function(*args)

    return in_tf32


def in_short(report: Report) -> dict[str, Any]:
    """The verdict, and the worst leaf's numbers."""
    worst = {name: getattr(report.rows[0], name) for name in ("error", "tolerance", "rho")} if report.rows else {}
    return {"verdict": report.verdict, "reason": report.reason, **worst}
