"""handgrad bench: hand-written gradients against the best of independent baselines, alternating in one process."""

import fnmatch
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from handgrad.checks import InputError, check_count, check_positive
from handgrad.cli.bench import baselines
from handgrad.cli.bench.rates import clock
from handgrad.cli.bench.records import Records
from handgrad.cli.bench.row import Plan, WrongAnswerError, measure
from handgrad.cli.bench.show import legend, plot, summary, table
from handgrad.cli.bench.workload import Workload, ways_of
from handgrad.cli.bench.workloads import ALL, WITHIN_A_MINUTE
from handgrad.cli.output import PASS, WRONG, check_writable
from handgrad.extras import install

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
QUICK = Plan(rounds=8, seconds=1.0, compilations=1)
NO_CLONE = "independent baselines are in a clone of the repository (--baselines DIR): jax.grad of our own forward alone"
NO_TORCH = "PyTorch is left out: its baselines are programs for CPUs"


@dataclass(frozen=True)
class Bench:
    """Time hand-written gradients against the best of independent baselines.

    All are checked against float64 first, then timed in turn, in one process.

    Exit status 0: measured.
    1: an answer is wrong.
    2: invalid usage.
    """

    only: tuple[str, ...] = ()
    """Names of workloads, or patterns of names as "gpt2-*"."""
    list: bool = False
    """List the workloads and run none."""
    quick: bool = False
    """A few small workloads, few samples, no PyTorch: a minute of processor time."""
    rounds: int = Plan.rounds
    """Samples of each way, at most."""
    seconds: float = Plan.seconds
    """Seconds for the samples of a workload, about."""
    json: File = None
    """A file to write the rows to, one by one, as JSON. Rows that are there already are kept, and not measured again;
    they must be of the same code, machine and options."""
    plot: File = None
    """A picture to draw the ratios in."""
    baselines: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """The folder of independent baselines. By default experiments/baselines of the clone that is installed."""


def main(options: Bench) -> int:
    """The command; its exit status. An interrupt leaves the rows measured so far in the JSON file."""
    chosen, console = _chosen(options), Console()
    if options.list:
        for one in chosen:
            console.print(f"{one.name:32}{', '.join(one.baselines)}", highlight=False, soft_wrap=True)
        return PASS
    place = baselines.folder(options.baselines)
    plan = QUICK if options.quick else Plan(options.rounds, options.seconds)
    records = Records(options.json, asdict(plan), place)
    if place is None:
        console.print(NO_CLONE, soft_wrap=True)
    torch = not options.quick and clock() == "cpu"
    if not (torch or options.quick):
        console.print(NO_TORCH)
    wrong = []
    try:
        for workload in (one for one in chosen if one.name not in records.rows):
            try:
                with console.status(workload.name):
                    row = measured(workload, plan, place, torch=torch)
            except WrongAnswerError as error:
                wrong.append(workload.name)
                print(f"handgrad: bench: {error}", file=sys.stderr)
            else:
                if row:
                    records.add(row)
    finally:
        rows = [records.rows[one.name] for one in chosen if one.name in records.rows]
        if rows:
            console.print(table(rows))
            console.print(legend(clock()), style="dim")
            console.print(summary(rows), highlight=False)
        if rows and options.plot:
            plot(rows, options.plot)
    return WRONG if wrong else PASS


def measured(workload: Workload, plan: Plan, place: Path | None, *, torch: bool = False) -> dict[str, Any] | None:
    """The row of a workload, with the seconds that it took; None where there is nothing to compare with.

    Raises:
      WrongAnswerError: two ways don't compute the same.
    """
    start = _seconds()
    modules = baselines.load(workload.baselines, place, torch=torch)
    program = workload.make(**workload.sizes)
    ways = ways_of(workload, program, modules)
    try:
        row = measure(workload, program, ways, plan) if len(ways) > 1 else None
    finally:
        jax.clear_caches()
    took = zip(("wall_s", "cpu_s"), _seconds(), start, strict=True)
    return row and row | {"took": {name: end - begin for name, end, begin in took}}


def _seconds() -> tuple[float, float]:
    """Of the wall, and of processors: this process and what it started (PyTorch's compiler)."""
    return time.perf_counter(), sum(os.times()[:4])


def _chosen(options: Bench) -> Sequence[Workload]:
    """The workloads that the options name, after checking all options."""
    check_count("bench", "rounds", options.rounds)
    check_positive("bench", "seconds", options.seconds)
    for name in ("json", "plot"):
        if path := getattr(options, name):
            check_writable("bench", name, path)
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"bench: plot needs matplotlib: {install('report')}")
    for pattern in options.only:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in ALL):
            raise InputError(f"bench: no workload is called {pattern}; handgrad bench --list names them")
    patterns = options.only or (WITHIN_A_MINUTE if options.quick else ("*",))
    chosen = [one for one in ALL if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)]
    return sorted(chosen, key=lambda one: one.heavy)
