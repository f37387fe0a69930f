"""The epochs of `fit`: steps, metrics, checkpoints, and what ends them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from handgrad.checks import InputError
from handgrad.training.batches import Chunk, Source
from handgrad.training.checkpoints import Checkpoints
from handgrad.training.evaluation import EarlyStopping, Evaluate, Metrics
from handgrad.training.interruption import Flag, Interrupted, interruptible
from handgrad.training.position import Position
from handgrad.training.progress import ProgressBar
from handgrad.training.state import TrainState

Callback = Callable[[TrainState, Metrics], bool | None]


class NotFiniteError(ArithmeticError):
    """A step's value or gradient had an infinity or a NaN, and training stopped.

    Attributes:
      state: the last good one, before that step.
    """

    def __init__(self, message: str, state: TrainState):
        super().__init__(message)
        self.state = state


@dataclass(frozen=True)
class Epochs:
    """What `fit` was told, checked."""

    source: Source
    stops: bool  # where a value isn't finite
    evaluate: Evaluate | None
    early_stopping: EarlyStopping | None
    callbacks: tuple[Callback, ...]
    checkpoints: Checkpoints | None

    def after(
        self, state: TrainState, position: Position, epochs: int, progress: bool
    ) -> Iterator[tuple[TrainState, Metrics]]:
        """The state and the metrics after each epoch. A checkpoint is saved only when the caller comes back for more:
        what it writes of an epoch is there before the checkpoint that follows the epoch, and if it fails, the epoch is
        taken again."""
        if self.early_stopping and position.stale >= self.early_stopping.patience:
            return  # resumed after it had stopped
        first = position.epoch
        bar = ProgressBar(first, epochs, self.source.steps) if progress else None
        with bar or contextlib.nullcontext(), interruptible() as flag:
            while position.epoch < first + epochs:
                state, position = self._epoch(state, position, flag, bar)
                metrics = self._metrics(state, position)
                position, stale = self._judged(position.next_epoch(), metrics)
                if bar:
                    bar.epoch(metrics)
                yield state, metrics
                stopped = [callback(state, metrics) for callback in self.callbacks]
                ends = stale or any(stopped) or position.epoch == first + epochs
                if self.checkpoints and (ends or self.checkpoints.due(int(state.step), metrics)):
                    self.checkpoints.save(state, position, metrics)
                if ends:
                    break
                self._interrupted(flag, state, position)
        if self.checkpoints:
            self.checkpoints.wait()

    def _epoch(
        self, state: TrainState, position: Position, flag: Flag, bar: ProgressBar | None
    ) -> tuple[TrainState, Position]:
        """To the end of the epoch that `position` is in."""
        for chunk in self.source.epoch(state, position.epoch, position.batch):
            if self.stops and not np.all(np.isfinite(chunk.values)):
                self._stop(chunk, position)
            state, position = chunk.state, position.after(chunk.values, chunk.counts)
            if bar:
                bar.advance(position, float(np.sum(chunk.counts)))
            if position.batch != self.source.steps:  # the end of an epoch has a checkpoint of its own
                if self.checkpoints and self.checkpoints.due(int(state.step)):
                    self.checkpoints.save(state, position)
                self._interrupted(flag, state, position)
        return state, position

    def _metrics(self, state: TrainState, position: Position) -> Metrics:
        metrics = {"epoch": position.epoch + 1, "step": int(state.step), "loss": position.loss}
        if position.skipped:
            metrics["skipped"] = position.skipped
        found = self.evaluate(state.params) if self.evaluate else {}
        return metrics | {name: float(value) for name, value in found.items()}

    def _judged(self, position: Position, metrics: Metrics) -> tuple[Position, bool]:
        """The position with the best value of early stopping's metric; and whether it is time to stop."""
        rule = self.early_stopping
        if rule is None:
            return position, False
        if rule.metric not in metrics:
            names = ", ".join(repr(name) for name in metrics)
            raise InputError(f"fit: early_stopping must name one of the metrics {names}, got {rule.metric!r}")
        value = metrics[rule.metric]
        if rule.improves(value, position.best):
            return position._replace(best=value, stale=0), False
        return position._replace(stale=position.stale + 1), position.stale + 1 >= rule.patience

    def _stop(self, chunk: Chunk, position: Position) -> None:
        """Save what was good, and say which step wasn't."""
        good = int(np.argmin(np.isfinite(chunk.values)))
        state = chunk.state._replace(step=chunk.state.step - (len(chunk.values) - good))
        if self.checkpoints:
            self.checkpoints.save(state, position.after(chunk.values[:good], chunk.counts[:good]))
            self.checkpoints.wait()
        value = chunk.values[good]
        what = f"the objective is {value}" if np.isinf(value) else "the objective or its gradient is not finite"
        raise NotFiniteError(
            f"fit: {what} in step {int(state.step) + 1} (epoch {position.epoch + 1}); "
            "the parameters are those before this step. Often a learning rate is too high, or a label out of range",
            state,
        )

    def _interrupted(self, flag: Flag, state: TrainState, position: Position) -> None:
        if not flag:
            return
        if self.checkpoints:
            self.checkpoints.save(state, position)  # unless this step has been
            self.checkpoints.wait()
        where = f"saved in {self.checkpoints.folder}" if self.checkpoints else "not saved: fit has no checkpoints"
        assert flag.signal is not None
        raise Interrupted(f"fit: interrupted by {flag.signal.name} after step {int(state.step)}, {where}", flag.signal)
