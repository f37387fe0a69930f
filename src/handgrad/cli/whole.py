"""handgrad check without a target: every rule of the library, and random networks."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from handgrad.cases import CASES, Case, first_rows
from handgrad.cli import output
from handgrad.crosscheck import Report, Settings
from handgrad.crosscheck.check import check_in_dtypes
from handgrad.crosscheck.report.text import figure
from handgrad.crosscheck.settings import Transform
from handgrad.models.random_check import check_random_networks

RULE_DTYPES = ("float64", "float32", "bfloat16")
NETWORK_DTYPES = ("float64", "float32")
TRANSFORMS: tuple[Transform, ...] = ("jit", "vmap")
WORKERS = 2
T = TypeVar("T")
LIBRARY = [case for case in CASES if not case.tests_only]


class Checked(NamedTuple):
    """A report and its line of the table.

    Attributes:
      rule: the rule, or how many networks.
      inputs: the case; "" for networks.
      seconds: the duration of the check.
    """

    rule: str
    inputs: str
    dtype: str
    report: Report
    seconds: float


class Plan(NamedTuple):
    """What to check.

    Attributes:
      rule_dtypes: every case is checked in the first dtype, and each rule's first case in the others.
      network_dtypes: of the networks.
      networks: random ones in each dtype.
      draws: number of networks that share a structure.
      seed: of all that is random.
      max_depth: of the networks.
      search: whether to search for inputs that make a rule fail.
    """

    rule_dtypes: Sequence[str] = RULE_DTYPES
    network_dtypes: Sequence[str] = NETWORK_DTYPES
    networks: int = 64
    draws: int = 4
    seed: int = 0
    max_depth: int = 8
    search: bool = False


def check_library(plan: Plan, console: Console, library: Sequence[Case] = LIBRARY) -> list[Report]:
    """Check, and print the table, each report that isn't a PASS, and a summary; return the reports, worst first."""
    start = time.perf_counter()
    with progress_bar(console) as bar:
        checked = [*check_rules(plan, library, bar), *check_networks(plan, bar)]
    console.print(table(checked))
    reports = output.worst_first([one.report for one in checked])
    for report in reports:
        if not report.ok:
            console.print()
            output.show(console, report)
    console.print()
    said = summary(plan, checked, time.perf_counter() - start)
    console.print(said, soft_wrap=not console.is_terminal)  # a line of a log is kept whole
    return reports


def check_rules(plan: Plan, library: Sequence[Case], bar: Progress) -> list[Checked]:
    """Every case in the first dtype, with the negative control; each rule's first case also in the others, and under
    transforms.

    Runs in threads, since XLA compiles outside Python's lock. bfloat16 has no negative control: its three digits hide
    many of the errors.
    """
    first, *others = plan.rule_dtypes
    leading = first_rows(library).values()
    task = bar.add_task("rules", total=len(library))

    def in_worker(case: Case) -> list[Checked]:
        leads, start = case in leading, time.perf_counter()
        given = [_settings(plan, first, TRANSFORMS if leads else (), first != "bfloat16")]
        given += [_settings(plan, dtype, (), False) for dtype in others if leads]
        given = [replace(one, differences=not case.estimator) for one in given]
        reference = partial(case.peer, **case.of_values) if case.peer else case.expected
        reports = check_in_dtypes(
            case.settled, *case.arguments(plan.seed), reference=reference, name=str(case), settings=given
        )
        bar.advance(task)
        seconds = (time.perf_counter() - start) / len(reports)
        return [
            Checked(case.op, str(case), dtype, replace(report, name=f"{case} in {dtype}"), seconds)
            for dtype, report in zip((first, *others), reports, strict=False)
        ]

    with ThreadPoolExecutor(WORKERS) as pool:
        return [one for checked in pool.map(in_worker, library) for one in checked]


def _settings(plan: Plan, dtype: str, transforms: tuple[Transform, ...], control: bool) -> Settings:
    return Settings(dtype=jnp.dtype(dtype), seed=plan.seed, transforms=transforms, control=control, search=plan.search)


def check_networks(plan: Plan, bar: Progress) -> list[Checked]:
    """Random networks, dtype by dtype."""
    total = plan.networks // plan.draws * len(plan.network_dtypes)
    task = bar.add_task("random networks", total=total)

    def advancing(rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            bar.advance(task)
            yield row

    def check_in(dtype: str) -> Checked:
        start = time.perf_counter()
        report = check_random_networks(
            plan.networks, plan.seed, jnp.dtype(dtype), draws=plan.draws, max_depth=plan.max_depth, progress=advancing
        )
        return Checked(f"{plan.networks} random networks", "", dtype, report, time.perf_counter() - start)

    return [check_in(dtype) for dtype in plan.network_dtypes]


def progress_bar(console: Console) -> Progress:
    """A progress bar that disappears when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


COLUMNS = ("dtype", "verdict", "ρ", "error", "tolerance", "power", "mutants", "s")


def table(checked: Sequence[Checked], columns: Sequence[str] = COLUMNS) -> Table:
    """One line for each rule and dtype: the worst leaf on any of its inputs, or some columns of it."""
    shown = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)  # fits 80 columns
    for heading in ("rule" if columns == COLUMNS else "", *columns):
        left = heading in ("rule", "", "dtype", "verdict")
        shown.add_column(heading, justify="left" if left else "right", overflow="fold")
    chosen = [0, *(COLUMNS.index(name) + 1 for name in columns)]
    groups: dict[tuple[str, str], list[Checked]] = {}
    for one in checked:
        groups.setdefault((one.rule, one.dtype), []).append(one)
    before = ""
    for (rule, dtype), group in groups.items():
        cells = _cells(rule if rule != before else "", dtype, group)
        shown.add_row(*(cells[k] for k in chosen))
        before = rule
    return shown


def _cells(rule: str, dtype: str, group: Sequence[Checked]) -> list[str | Text]:
    worst = output.worst_first([one.report for one in group])[0]
    rows = [row for one in group for row in one.report.rows]
    seconds = f"{sum(one.seconds for one in group):.0f}"
    verdict = Text(worst.verdict, output.COLORS[worst.verdict])
    if not rows:
        return [rule, dtype, verdict, "-", "-", "-", "-", "-", seconds]
    row = worst.rows[0] if worst.rows else rows[0]
    figures = [f"{row.error:.0e}", f"{row.tolerance:.0e}", f"{max(one.power for one in rows):.0e}"]
    return [rule, dtype, verdict, figure(row.rho, ".2g"), *figures, _mutants([one.report for one in group]), seconds]


def _mutants(reports: Sequence[Report]) -> str:
    killed, made = mutants(reports)
    return f"{killed}/{made}" if made else "-"


def mutants(reports: Sequence[Report]) -> tuple[int, int]:
    """(number of mutants detected, number of mutants)."""
    controls = [report.control for report in reports if report.control]
    killed = sum(sum(control.killed.values()) for control in controls)
    return killed, killed + sum(len(control.survived) for control in controls)


def summary(plan: Plan, checked: Sequence[Checked], seconds: float) -> Text:
    """The whole run in one sentence."""
    reports = [one.report for one in checked]
    wrong = sum(report.verdict in ("FAIL", "INVALID") for report in reports)
    inconclusive = sum(report.verdict == "INCONCLUSIVE" for report in reports)
    rules = [one for one in checked if one.inputs]
    networks = plan.networks * len(plan.network_dtypes)
    verdict = "FAIL" if wrong else "INCONCLUSIVE" if inconclusive else "PASS"
    outcome = {
        "PASS": "every gradient is right",
        "INCONCLUSIVE": f"{inconclusive} of {len(reports)} checks are inconclusive",
        "FAIL": f"{wrong} of {len(reports)} checks found a wrong gradient",
    }[verdict]
    killed, made = mutants(reports)
    ops, inputs = len({one.rule for one in rules}), len({one.inputs for one in rules})
    first, *others = plan.rule_dtypes
    dtypes = f"{first}, on one each in {' and '.join(others)}" if others else first
    device = jax.devices()[0]
    text = Text(
        f"{verdict}: {outcome}; {ops} rules on {inputs} inputs in {dtypes}, "
        f"{networks} random networks, {killed:,} of {made:,} mutants killed; "
        f"{device.platform} ({device.device_kind}), jax {jax.__version__}, {math.ceil(seconds)} s"
    )
    text.stylize(f"bold {output.COLORS[verdict]}", 0, len(verdict))
    return text
