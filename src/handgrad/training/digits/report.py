"""The files of a run: metrics.jsonl, the learning curve and the worst-classified digits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.training.digits.classifier import Trained
from handgrad.training.digits.data import Split
from handgrad.training.runs import METRICS


def write_report(folder: Path, trained: Trained, test: Split, title: str) -> list[Path]:
    """Write metrics.jsonl, learning_curve.png and worst_digits.png; the paths written."""
    paths = [folder / name for name in (METRICS, "learning_curve.png", "worst_digits.png")]
    paths[0].write_text("".join(json.dumps(metrics) + "\n" for metrics in trained.history))
    plot_learning_curve(paths[1], trained.history, title)
    plot_worst(paths[2], test, np.asarray(trained.logits), title)
    return paths


def plot_learning_curve(path: Path, history: Sequence[dict[str, float]], title: str) -> None:
    """Loss and accuracy on both sets, epoch by epoch."""
    from matplotlib.ticker import MaxNLocator

    epochs = [metrics["epoch"] for metrics in history]
    figure, (cost, accuracy) = _figure(1, 2, (10, 4))
    for split, style in (("train", "--"), ("test", "-")):
        cost.plot(epochs, [m[f"{split}_loss"] for m in history], style, label=split)
        accuracy.plot(epochs, [100 * m[f"{split}_accuracy"] for m in history], style, label=split)
    cost.set(xlabel="epoch", ylabel="mean loss", yscale="log", title=title)
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)", title=f"test {100 * history[-1]['test_accuracy']:.2f} %")
    for axes in (cost, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_worst(path: Path, test: Split, outputs: np.ndarray, title: str, rows: int = 4, columns: int = 6) -> None:
    """The test images where the best wrong class is furthest ahead of the right one."""
    right = np.take_along_axis(outputs, test.labels[:, None], axis=1)[:, 0]
    wrong = outputs.copy()
    np.put_along_axis(wrong, test.labels[:, None], -np.inf, axis=1)
    worst = np.argsort(right - wrong.max(axis=1), kind="stable")[: rows * columns]
    side = int(np.sqrt(test.x.shape[1]))
    figure, panels = _figure(rows, columns, (1.5 * columns, 1.75 * rows))
    for axes, i in zip(panels.flat, worst, strict=False):
        answer = int(outputs[i].argmax())
        axes.imshow(test.x[i].reshape(side, side), cmap="gray_r")
        color = "tab:green" if answer == test.labels[i] else "tab:red"
        axes.set_title(f"{test.labels[i]} read as {answer}", color=color, fontsize=9)
    for axes in panels.flat:
        axes.axis("off")
    figure.suptitle(f"{title}: the worst-classified test digits (red: wrong)")
    figure.savefig(path, dpi=120)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """A figure that needs no display, and its axes. matplotlib is imported here: it comes with the extra."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)
