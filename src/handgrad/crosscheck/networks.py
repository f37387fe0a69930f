"""Many networks at once: one line for each, and a report on all of them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.report.report import Report, Row, Verdict
from handgrad.crosscheck.subject.arguments import ProblemError
from handgrad.crosscheck.subject.forms import from_model
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge


class Network(NamedTuple):
    """A network and its data.

    Attributes:
      name: what it is called in a report.
      model, loss: as `check_model` takes them.
      draws: one or more of (params, x, target, weights), alike in structure, shapes and dtypes: compiled once.
    """

    name: str
    model: Any
    loss: Any
    draws: list[tuple[Any, Any, Any, Any]]


def check_networks(
    networks: Iterable[Network],
    *,
    seed: int = 0,
    name: str = "networks",
    workers: int = 2,
    progress: Callable[[Iterator[Row]], Iterable[Row]] = iter,
) -> Report:
    """Check many networks against autodiff, in the given dtype and in float64, by params and x.

    Args:
      networks: what to check; made while the others are checked.
      seed: of the cotangents.
      name: what the report calls them.
      workers: how many networks at a time; XLA compiles outside Python's lock.
      progress: wraps the iterator over rows, as a progress bar does.
    Returns:
      Report with one row for each network, that of its worst leaf over all its draws. Nothing is left to differences,
      promises and mutants: `check_model` does all that for one network.
    """
    # Whether 64-bit types are on is a setting of this thread, which the workers don't inherit.
    x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]

    def in_worker(network: Network) -> Row:
        with jax.enable_x64(x64):
            return _worst(network, seed)

    try:
        with ThreadPoolExecutor(workers) as pool:
            rows = list(progress(pool.map(in_worker, networks)))
    except ProblemError as error:
        return Report(name=name, verdict="INVALID", reason=str(error), culprit="hand")
    if not rows:
        return Report(name=name, verdict="INCONCLUSIVE", reason="there are no networks to check", culprit="input")
    order = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}
    rows.sort(key=lambda row: (order[row.status], -np.nan_to_num(row.error / (row.tolerance or 1e-300), nan=np.inf)))
    failed = [row for row in rows if row.status == "FAIL"]
    verdict: Verdict = "FAIL" if failed else "PASS"
    reason = f"{len(failed)} of {len(rows)} are wrong, {failed[0].leaf} first" if failed else ""
    blind = sum(row.status == "INCONCLUSIVE" for row in rows)
    if not failed and blind:
        reason = f"{blind} of {len(rows)} are inconclusive: {rows[0].leaf}: {rows[0].reason}"
        verdict = "INCONCLUSIVE"
    settings = {"networks": len(rows), "seed": seed, "jax": jax.__version__}
    return Report(name, verdict, reason, "hand" if failed else "", tuple(rows), settings=settings)


def _worst(network: Network, seed: int) -> Row:
    """The row of the worst leaf over all draws of one network."""
    programs, found = None, []
    for draw in network.draws:
        problem = from_model(network.name, network.model, network.loss, draw)
        programs = programs or Programs(problem)
        evidence = collect(programs, problem.leaves, seed, draws=1, basis=0)
        found += judge.rows(evidence, evidence.hand)
    order = {"FAIL": 0, "PASS": 1, "INCONCLUSIVE": 2}
    # A leaf without a gradient (a unit that is dead in every example) is no news where the others have one.
    worst = min(found, key=lambda row: (order[row.status], -row.error / (row.tolerance or 1e-300)))
    return replace(worst, leaf=f"{network.name}: {worst.leaf}")
