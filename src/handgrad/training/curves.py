"""The learning curves of runs, in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Lines = Sequence[Mapping[str, Any]]
BESIDE = ("epoch", "step", "skipped")  # counts, not metrics
UNITS = {"accuracy": ("accuracy (%)", 100.0), "loss": ("mean loss", 1.0), "cost": ("mean cost", 1.0)}
STYLES = ("-", "--", ":", "-.")


def plot_curves(path: Path, runs: Mapping[str, Lines], title: str = "") -> None:
    """Draw the metrics of runs, epoch by epoch: a panel for each quantity, a color for each run.

    A quantity is what a metric is called after its last underscore: held_out_loss is a loss, as is that of training.

    Args:
      path: a picture; its ending names the format.
      runs: the lines of each run's metrics.jsonl, by a name for the legend.
      title: above all panels.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = _panels(runs)
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for axes, (quantity, metrics) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        label, scale = UNITS.get(quantity, (quantity.replace("_", " "), 1.0))
        for color, (run, lines) in enumerate(runs.items()):
            for style, metric in enumerate(metrics):
                points = [(line["epoch"], scale * line[metric]) for line in lines if line.get(metric) is not None]
                if points:
                    name = f"{run}, {_data(metric)}" if len(metrics) > 1 else run
                    marker = "o" if len(points) == 1 else None
                    axes.plot(
                        *zip(*points, strict=True), STYLES[style % 4], color=f"C{color}", marker=marker, label=name
                    )
        axes.set(xlabel="epoch", ylabel=label, title=quantity.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def picture_endings() -> list[str]:
    """The endings of pictures that can be drawn."""
    from matplotlib.figure import Figure

    return [f".{ending}" for ending in sorted(Figure().canvas.get_supported_filetypes())]


def _panels(runs: Mapping[str, Lines]) -> dict[str, list[str]]:
    """The metrics of each quantity, those of the training data last."""
    metrics = dict.fromkeys(name for lines in runs.values() for line in lines for name in line if name not in BESIDE)
    panels: dict[str, list[str]] = {}
    for metric in sorted(metrics, key=lambda name: _data(name) == "train"):
        panels.setdefault(metric.rpartition("_")[2], []).append(metric)
    return panels


def _data(metric: str) -> str:
    """The data that a metric is of: what stands before its last underscore, or else those of training."""
    return metric.rpartition("_")[0].replace("_", " ") or "train"
