"""The bench on a terminal and as a plot."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from handgrad.cli.bench.workload import HAND

Row = dict[str, Any]
WIDTHS = {"workload": 28, "ms": 6, "time": 4, "baseline": 12, "JAX": 4, "mem": 4, "comp.": 5, "peak": 4, "error": 5}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
BEHIND = 1.03  # a row whose ratio of time or memory is beyond this loses
CLOCKS = {"cpu": "process CPU time", "wall": "wall time, this being an accelerator"}


def table(rows: Sequence[Row]) -> Table:
    """A line for each workload, 80 columns wide."""
    made = Table(
        title="by hand / the best of the baselines",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading, width in WIDTHS.items():
        left = heading in ("workload", "baseline")
        made.add_column(heading, justify="left" if left else "right", no_wrap=True, min_width=width, max_width=width)
    for row in rows:
        own, time = row["ways"][HAND], row["time"]
        clock = row["clock"]
        of_jax = "" if row["time_jax"] == time else f"{row['time_jax'][clock][1]:.2f}"
        ms = own[f"{clock}_ms"]
        made.add_row(
            row["name"],
            f"{ms:.3f}" if ms < 1 else f"{ms:.1f}",
            f"{time[clock][1]:.2f}",
            _short(time["baseline"]),
            of_jax,
            f"{row['memory']['ratio']:.2f}",
            f"{row['compile']['ratio']:.2f}",
            f"{row['product_share']:.0%}" if row["flops"] else "–",
            f"{own['error']:.0e}",
        )
    return made


def _short(baseline: str) -> str:
    """What tells a baseline from the others."""
    for known in ("jax.grad, ", "jax.vjp, ", "jax.grad and "):
        baseline = baseline.removeprefix(known)
    return baseline.replace("optax, unrolled", "unrolled")


def legend(clock: str) -> str:
    """What the columns are."""
    return (
        f"ms: a run by hand, {CLOCKS[clock]}. time: by hand / the fastest baseline, median (JAX: the fastest of "
        "XLA's, where that is PyTorch). mem: temporary and output memory / the least of the baselines. comp.: trace "
        "and compile time. peak: share of the matrix-product rate. error: by hand, against float64."
    )


def summary(rows: Sequence[Row]) -> str:
    """Geometric means, and a line for each row that loses; 80 columns wide."""
    means = {
        "time": [row["time"][row["clock"]][1] for row in rows],
        "memory": [row["memory"]["ratio"] for row in rows],
        "compile": [row["compile"]["ratio"] for row in rows],
    }
    said = ", ".join(f"{name} {geometric(ratios):.2f}" for name, ratios in means.items())
    lost = []
    for row, *ratios in zip(rows, means["time"], means["memory"], strict=True):
        behind = zip(("time", "memory"), ratios, strict=True)
        if words := "  ".join(f"{name} {ratio:.2f}" for name, ratio in behind if ratio > BEHIND):
            lost.append(f"  {row['name']:{WIDTHS['workload']}} {words}")
    losing = (
        f"{len(lost)} behind by more than {BEHIND - 1:.0%}:" if lost else f"none behind by more than {BEHIND - 1:.0%}"
    )
    wall, cpu = (sum(row["took"][name] for row in rows) for name in ("wall_s", "cpu_s"))
    took = f"{len(rows)} workloads in {wall:,.0f} s, {cpu:,.0f} s of processors"
    return "\n".join([took, f"geometric means: {said}", losing, *lost])


def geometric(ratios: Sequence[float]) -> float:
    """The geometric mean; of none, of zeros and of infinities that of the others."""
    logs = [math.log(ratio) for ratio in ratios if 0 < ratio < math.inf]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def plot(rows: Sequence[Row], path: Path) -> None:
    """Ratios of time, with their quartiles, and of memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    by_time, by_memory = figure.subplots(1, 2, sharey=True)
    names, places = [row["name"] for row in rows], range(len(rows))
    low, middle, high = zip(*(row["time"][row["clock"]] for row in rows), strict=True)
    by_time.hlines(places, low, high, color="tab:blue", alpha=0.4)
    by_time.plot(middle, places, "o", markersize=4)
    by_memory.plot([row["memory"]["ratio"] for row in rows], places, "o", markersize=4, color="tab:orange")
    for axes, title in ((by_time, "time"), (by_memory, "memory")):
        axes.axvline(1, color="gray", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], fontsize=7)
        axes.minorticks_off()
        axes.set_title(f"{title}, by hand / best baseline", fontsize=9)
        axes.grid(alpha=0.3)
    by_time.set_yticks(places, names, fontsize=7)
    by_time.invert_yaxis()
    figure.savefig(path, dpi=150)
