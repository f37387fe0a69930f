"""Time and memory by hand over the best program in JAX, workload by workload, from docs/results/bench.json.

python docs/figures/performance.py
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _style import COLOR, save, svg
from matplotlib.figure import Figure

BENCH = Path(__file__).parents[1] / "results/bench.json"
FAMILIES = [  # (what a row of the figure is called, how its workloads' names begin)
    ("attention", ("attention",)),
    ("transformers", ("gpt2", "llama")),
    ("recurrent networks", ("rnn", "lstm", "gru", "linear-recurrence")),
    ("normalization", ("layer-norm", "rms-norm")),
    ("convolutions", ("conv",)),
    ("convolutional networks", ("lenet5", "3c3d", "all-cnn", "resnet", "mobilenet")),
    ("dense networks", ("mlp", "repeat", "dlrm")),
    ("activations, softmax", ("relu", "gelu", "silu", "softplus", "softmax", "log-softmax")),
    ("cross-entropy", ("cross-entropy", "linear-cross-entropy")),
    ("per-example statistics", ("norms", "clipped", "noise-scale", "kfac")),
    ("two-phase updates", ("two-phase",)),
]


def families() -> list[tuple[str, list[float], list[float]]]:
    """(name, ratios of time, ratios of memory) of each family; every row of the file is in one."""
    rows = {row["name"]: row for row in json.loads(BENCH.read_text())["rows"]}
    rows.pop("overhead-single-weight")  # microseconds of dispatch, no arithmetic
    found = []
    for name, starts in FAMILIES:
        mine = [rows.pop(key) for key in list(rows) if key.startswith(starts)]
        found.append((name, [row["time_jax"]["cpu"][1] for row in mine], [row["memory"]["ratio"] for row in mine]))
    if rows:
        raise ValueError(f"no family has {sorted(rows)}")
    return found


def strip(axes, ratios: Sequence[list[float]], title: str, least: float) -> None:
    """A dot for each workload, a line of dots for each family, and where both sides tie."""
    axes.axvspan(1e-3, 1, facecolor=COLOR.green, alpha=0.07, linewidth=0)
    axes.axvline(1, color=COLOR.ink, linewidth=1.4)
    for i, values in enumerate(ratios):
        axes.axhline(i, color=COLOR.line, linewidth=0.8, zorder=0)
        hues = np.select([np.array(values) < 0.97, np.array(values) > 1.03], [COLOR.green, COLOR.red], COLOR.muted)
        for value, hue in zip(values, hues, strict=True):
            axes.plot([value], [i], "o", color=str(hue), markersize=7.5, alpha=0.55, markeredgewidth=0)
        axes.plot([np.exp(np.mean(np.log(values)))], [i], "|", color=COLOR.ink, markersize=15, markeredgewidth=2)
    ticks = [0.01, 0.03, 0.1, 0.3, 1]
    axes.set(xscale="log", xlim=(least / 1.2, 2.3), ylim=(len(ratios) - 0.5, -0.5))
    axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(length=0, labelsize=11.5)
    axes.spines["left"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=13)


def draw() -> str:
    """The figure, as SVG."""
    names, times, memory = zip(*families(), strict=True)
    figure = Figure(figsize=(720 / 72, 400 / 72))
    left, right = figure.add_axes((0.235, 0.085, 0.365, 0.83)), figure.add_axes((0.625, 0.085, 0.365, 0.83))
    least = min(min(values) for values in (*times, *memory))
    strip(left, times, "time / the fastest in JAX", least)
    strip(right, memory, "memory / the least in JAX", least)
    left.set_yticks(range(len(names)), names)
    left.tick_params(axis="y", labelcolor=COLOR.ink, labelsize=12.5)
    right.set_yticks([])
    return svg(
        figure,
        "Time and memory by hand over the best program in JAX",
        "A row for each family of workloads, a dot for each workload, on a logarithmic axis with a line at one. Left "
        "the ratio of times, right that of memory. A bar marks each family's geometric mean.",
    )


if __name__ == "__main__":
    save(__file__, draw())
