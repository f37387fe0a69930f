"""The progress bar of `fit`."""

import contextlib
import time
from collections.abc import Mapping

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from handgrad.training.position import Position


class ProgressBar(contextlib.AbstractContextManager["ProgressBar"]):
    """rich's bar over the steps of a run: the mean loss of this epoch, the latest accuracy, examples per second, time
    remaining."""

    def __init__(self, first: int, epochs: int, steps: int | None):
        text = TextColumn("{task.description}")
        self._progress = Progress(text, BarColumn(bar_width=8), TimeRemainingColumn())
        self._first, self._epochs, self._steps = first, epochs, steps
        self._task = self._progress.add_task("", total=epochs * (steps or 1))
        self._metrics: Mapping[str, float] = {}
        self._seen, self._start = 0.0, time.perf_counter()

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, position: Position, examples: float) -> None:
        """Some steps further, of so many examples."""
        self._seen += examples
        done = (position.epoch - self._first) * (self._steps or 1) + (position.batch if self._steps else 0)
        self._show(position.loss, position.epoch + 1, done)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """An epoch is complete; its metrics."""
        self._metrics = metrics
        number = int(metrics["epoch"])
        self._show(metrics["loss"], number, (number - self._first) * (self._steps or 1))

    def _show(self, loss: float, epoch: int, done: int) -> None:
        accuracies = [name for name in self._metrics if name.endswith("accuracy")]
        rate = self._seen / max(time.perf_counter() - self._start, 1e-9)
        shown = [f"epoch {epoch}/{self._first + self._epochs}", f"loss {loss:.3g}"]
        shown += [f"accuracy {100 * self._metrics[name]:.1f} %" for name in accuracies[-1:]]
        self._progress.update(self._task, completed=done, description="  ".join([*shown, f"{rate:,.0f} examples/s"]))
