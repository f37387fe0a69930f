"""How do time, memory and compile time grow with tokens, time, batch, depth, width and vocabulary?

A workload of `handgrad bench` at sizes that double, by hand and by its fastest plain baseline in JAX; each answer is
checked as there. A line through the logarithms gives the exponents: 1 is linear, 2 quadratic, 0 constant.

    python experiments/growth.py --out runs/growth.json
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter, NullLocator

from handgrad.checks import check_choice
from handgrad.cli.bench import baselines, measured
from handgrad.cli.bench.rates import clock
from handgrad.cli.bench.row import Plan
from handgrad.cli.bench.workload import HAND
from handgrad.cli.bench.workloads import ALL

# axis: a workload, the size that grows, and where it begins
AXES = {
    "tokens": ("attention-causal-256", "tokens", 128),
    "time": ("lstm-medium", "time", 16),
    "batch": ("repeat-relu-batch-256", "batch", 64),
    "depth": ("repeat-relu-batch-256", "depth", 4),
    "width": ("repeat-relu-batch-256", "width", 64),
    "vocabulary": ("cross-entropy-8k", "vocabulary", 4096),
}
FIGURES = {"time": "ms", "memory": "memory_bytes", "compile": "compile_s"}
PANELS = {"time": ("time, ms", 1.0), "memory": ("memory, MB", 1e-6), "compile": ("compile time, s", 1.0)}
WAYS = {"hand": "by hand", "baseline": "fastest in JAX"}


@dataclass(frozen=True)
class Options:
    """Exponents of growth."""

    axes: tuple[str, ...] = tuple(AXES)
    """What grows."""
    doublings: int = 4
    """How often each size doubles."""
    rounds: int = 10
    """Samples at each size, at most."""
    out: Path = Path("runs/growth.json")
    """Where the figures go; the plot is beside them."""


def at(axis: str, size: int, options: Options) -> dict[str, Any]:
    """Time, memory and compile time by hand and by the fastest plain baseline."""
    name, grows, _ = AXES[axis]
    workload = next(one for one in ALL if one.name == name)
    workload = dataclasses.replace(workload, sizes={**workload.sizes, grows: size})
    row = measured(workload, Plan(options.rounds, 2.0, 1), baselines.folder(None))
    assert row
    ways = {"hand": row["ways"][HAND], "baseline": row["ways"][row["time"]["baseline"]]}
    figures = {way: one | {"ms": one[f"{clock()}_ms"]} for way, one in ways.items()}
    return {"size": size} | {way: {name: one[key] for name, key in FIGURES.items()} for way, one in figures.items()}


def exponent(points: list[dict[str, Any]], way: str, figure: str) -> float:
    """The slope of log figure over log size."""
    sizes, values = [point["size"] for point in points], [point[way][figure] for point in points]
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def plot(points: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A row of panels for each axis, both ways in each panel."""
    figure = Figure(figsize=(9, 2.2 * len(points)), layout="constrained")
    panels = figure.subplots(len(points), len(FIGURES), squeeze=False)
    for row, (axis, of_axis) in zip(panels, points.items(), strict=True):
        sizes = [point["size"] for point in of_axis]
        for panel, name in zip(row, FIGURES, strict=True):
            title, unit = PANELS[name]
            for way, label in WAYS.items():
                values = [point[way][name] * unit for point in of_axis]
                panel.loglog(sizes, values, "o-", ms=3, label=f"{label}: {exponent(of_axis, way, name):.2f}")
            low, high = panel.get_ylim()
            middle = (low * high) ** 0.5  # a decade at least, so that noise looks like noise
            panel.set_ylim(min(low, middle / 10**0.5), max(high, middle * 10**0.5))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xlabel(axis, fontsize=7)
            panel.set_title(title, fontsize=8)
            panel.tick_params(labelsize=6)
            panel.legend(fontsize=6, title="exponent", title_fontsize=6)
    figure.savefig(path, dpi=150)


def run(options: Options) -> dict[str, Any]:
    """Print the table of exponents, draw the plot, write the figures, return them."""
    study.begin("growth", options, "doublings", "rounds")
    for axis in options.axes:
        check_choice("growth", "axes", axis, tuple(AXES))
    points = {
        axis: [at(axis, AXES[axis][2] * 2**i, options) for i in range(options.doublings + 1)] for axis in options.axes
    }
    table = study.table("exponents, by hand / fastest in JAX", "axis", "workload", *FIGURES)
    exponents = {}
    for axis, of_axis in points.items():
        exponents[axis] = {way: {name: exponent(of_axis, way, name) for name in FIGURES} for way in WAYS}
        found = (" / ".join(f"{of_way[name]:.2f}" for of_way in exponents[axis].values()) for name in FIGURES)
        table.add_row(axis, AXES[axis][0], *found)
    plot(points, options.out.with_suffix(".png"))
    study.publish(options.out, options, table, points=points, exponents=exponents)
    return {"points": points, "exponents": exponents}


if __name__ == "__main__":
    study.main(run, Options)
