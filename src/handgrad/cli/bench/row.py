"""One row of the bench: every way of one workload, checked, then compiled and timed in turn."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from handgrad.cli.bench.rates import clock, copy_rate, product_rate
from handgrad.cli.bench.workload import HAND, Program, Way, Workload
from handgrad.models.flops import product_flops

LEAST = 3e-3  # seconds that a sample takes at least: shorter programs run several times in one
SMALL = 1e-3  # of the largest gradient: errors are shares of that at least, since some gradients are rounding alone
# Errors in float32 beyond which an answer by hand is wrong, unless a baseline rounds as badly; and a baseline's. One
# relu that rounding turns on or off makes 1e-4 in a shallow network and 1e-2 in a ResNet.
WRONG, WRONG_BASELINE = 1e-3, 5e-2
COMPILING = 4.0  # seconds of a row's compilations after which none is repeated: long ones differ little
WARMING = 0.5  # seconds after which a program has run often enough to know how long it takes


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
      rounds: samples of each way, at most.
      seconds: for the samples of all ways, about: three samples of each are taken whatever they cost.
      compilations: of each way, at most, while all together take no longer than COMPILING.
    """

    rounds: int = 30
    seconds: float = 3.0
    compilations: int = 3


class WrongAnswerError(Exception):
    """Two ways of a workload don't compute the same."""


def measure(workload: Workload, program: Program, ways: Mapping[str, Way], plan: Plan) -> dict[str, Any]:
    """The row.

    Raises:
      WrongAnswerError: a way's result is not what the others' is in float64.
    """
    compiled, figures = _compile(ways, program.donate, plan.compilations)
    errors = check(workload, program, ways, compiled)
    samples = in_turn({name: _repeated(compiled[name], ways[name], program.donate) for name in ways}, plan)
    hand = samples[HAND]
    for name, figure in figures.items():
        figure["error"] = errors[name]
        for kind, seconds, own in zip(("wall", "cpu"), samples[name].T, hand.T, strict=True):
            figure[f"{kind}_ms"] = 1e3 * float(np.median(seconds))
            figure[f"{kind}_ratio"] = quartiles(own / seconds)
    alike = {name for name, way in ways.items() if workload.trade in (way.trade, None)}
    reference = next(name for name in ways if name != HAND)
    flops = product_flops(ways[reference].function, *ways[reference].arguments)
    moved = sum(a.nbytes for a in jax.tree.leaves(program.arguments)) + figures[HAND]["output_bytes"]
    seconds = figures[HAND]["wall_ms"] / 1e3
    return {
        "name": workload.name,
        "sizes": {name: value for name, value in workload.sizes.items() if not callable(value)},
        "trade": workload.trade,
        "rounds": len(hand),
        "ways": figures,
        "flops": flops,
        "product_share": flops / seconds / product_rate(),
        "copy_share": moved / seconds / copy_rate(),
        "clock": clock(),
        **quoted(figures, alike, clock()),
    }


def quoted(figures: Mapping[str, Mapping[str, Any]], alike: set[str], by: str) -> dict[str, Any]:
    """By hand / the best baseline: in time, in memory, and in compile time beside the fastest of XLA's.

    Args:
      alike: ways that trade time for memory where by hand does; the others aren't quoted, where there is one.
      by: "cpu" or "wall", the clock by which the best is the fastest.
    """
    others = [name for name in figures if name != HAND]
    others = [name for name in others if name in alike] or others
    by_xla = [name for name in others if figures[name]["memory_bytes"] is not None]
    best = min(others, key=lambda name: figures[name][f"{by}_ms"])
    fastest = min(by_xla, key=lambda name: figures[name][f"{by}_ms"])
    least = min(by_xla, key=lambda name: figures[name]["memory_bytes"])
    own = figures[HAND]
    return {
        "time": {"baseline": best, "cpu": figures[best]["cpu_ratio"], "wall": figures[best]["wall_ratio"]},
        "time_jax": {"baseline": fastest, "cpu": figures[fastest]["cpu_ratio"], "wall": figures[fastest]["wall_ratio"]},
        "memory": {"baseline": least, "ratio": _ratio(own["memory_bytes"], figures[least]["memory_bytes"])},
        "compile": {"baseline": fastest, "ratio": own["compile_s"] / figures[fastest]["compile_s"]},
    }


def _ratio(one: float, two: float) -> float:
    return one / two if two else 1.0 if one == two else math.inf


def quartiles(ratios: np.ndarray) -> list[float]:
    """First quartile, median, third."""
    return [float(q) for q in np.quantile(ratios, (0.25, 0.5, 0.75))]


def _compile(
    ways: Mapping[str, Way], donate: tuple[int, ...], times: int
) -> tuple[dict[str, Callable[..., PyTree]], dict[str, dict[str, Any]]]:
    """Each way's program; and its memory, and the medians of the seconds that tracing and all of compiling take."""
    programs: dict[str, Any] = {name: way.function for name, way in ways.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    began = time.perf_counter()
    for turn in range(times):
        if turn and time.perf_counter() - began > COMPILING:
            break
        for name, way in ways.items():
            if not way.compiled:
                continue
            jax.clear_caches()
            start = time.perf_counter()
            lowered = jax.jit(way.function, donate_argnums=donate).lower(*way.arguments)
            traced = time.perf_counter()
            programs[name] = lowered.compile()
            seconds[name].append((traced - start, time.perf_counter() - start))
    figures: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        figures[name] = dict.fromkeys(("trace_s", "compile_s", "temp_bytes", "output_bytes", "memory_bytes"))
        if way.compiled:
            trace_s, compile_s = np.median(seconds[name], axis=0)
            analysis = programs[name].memory_analysis()
            output = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            temp = analysis.temp_size_in_bytes
            figures[name] = {
                "trace_s": float(trace_s),
                "compile_s": float(compile_s),
                "temp_bytes": temp,
                "output_bytes": output,
                "memory_bytes": temp + output,
            }
    return programs, figures


def check(
    workload: Workload, program: Program, ways: Mapping[str, Way], compiled: Mapping[str, Callable[..., PyTree]]
) -> dict[str, float]:
    """Each way's largest error, as a share: against float64, where by hand and the first baseline must agree.

    Raises:
      WrongAnswerError: they don't, or an error is too large.
    """
    reference = next(way for way in ways if way != HAND)
    with jax.enable_x64(True):
        by_hand, expected = (
            jax.device_get(jax.jit(ways[way].function)(*_double(ways[way].arguments))) for way in (HAND, reference)
        )
    if (error := distance(ways[reference].alike(by_hand), expected)) > workload.float64 or math.isnan(error):
        raise WrongAnswerError(f"{workload.name}: by hand and {reference} differ by {error:.1e} in float64")
    errors = {}
    for one, way in ways.items():
        found = compiled[one](*_copied(way.arguments) if program.donate else way.arguments)
        found = jax.tree.map(np.asarray, found)
        errors[one] = distance(found, way.alike(by_hand))
    allowed = max(WRONG, *(3 * error for one, error in errors.items() if one != HAND))
    for one, error in errors.items():
        if not error <= (min(allowed, WRONG_BASELINE) if one == HAND else WRONG_BASELINE):
            raise WrongAnswerError(f"{workload.name}: {one} is wrong by {error:.1e}")
    return errors


def _double(arguments: PyTree) -> PyTree:
    return jax.tree.map(lambda a: np.asarray(a, np.float64) if np.asarray(a).dtype == np.float32 else a, arguments)


def _copied(arguments: PyTree) -> PyTree:
    return jax.tree.map(jnp.array, arguments)


def distance(found: PyTree, expected: PyTree) -> float:
    """The largest difference in any array as a share of its largest number; infinite for another structure."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    if [np.shape(a) for a in found] != [np.shape(a) for a in expected]:
        return math.inf
    largest = [float(np.max(np.abs(a), initial=0.0)) for a in expected]
    least = SMALL * max((size for a, size in zip(expected, largest, strict=True) if np.ndim(a)), default=0.0)
    shares = [0.0]
    for a, b, size in zip(found, expected, largest, strict=True):
        difference = float(np.max(np.abs(np.asarray(a, np.float64) - b), initial=0.0))
        shares.append(difference / max(size, least) if difference else 0.0)
    return math.nan if any(map(math.isnan, shares)) else max(shares)


def _repeated(function: Callable[..., PyTree], way: Way, donate: tuple[int, ...]) -> Callable[[int], None]:
    """Run the program so many times; what is donated goes on from its result."""
    arguments = list(_copied(way.arguments) if way.compiled else way.arguments)

    def run(times: int) -> None:
        result = None
        for _ in range(times):
            result = function(*arguments)
            if donate:
                arguments[donate[0]] = result[0]
        if way.compiled:
            jax.block_until_ready(result)

    return run


def in_turn(runs: Mapping[str, Callable[[int], None]], plan: Plan) -> dict[str, np.ndarray]:
    """(wall, CPU) seconds of one run of each, sample by sample: in turn, and every second round in reverse order."""
    times = max(1, math.ceil(LEAST / min(_shortest(run) for run in runs.values())))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    end = time.perf_counter() + plan.seconds
    for turn in range(plan.rounds):
        for name in reversed(tuple(runs)) if turn % 2 else runs:
            wall, cpu = time.perf_counter(), time.process_time()
            runs[name](times)
            took = time.perf_counter() - wall, time.process_time() - cpu
            samples[name].append((took[0] / times, took[1] / times))
        if time.perf_counter() > end and turn >= 2:
            break
    return {name: np.array(taken) for name, taken in samples.items()}


def _shortest(run: Callable[[int], None]) -> float:
    """Seconds of the fastest of a few runs, or of the first, where that is long."""
    seconds: list[float] = []
    while len(seconds) < 5 and sum(seconds) < WARMING:
        start = time.perf_counter()
        run(1)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
