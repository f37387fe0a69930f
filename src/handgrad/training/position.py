"""How far a run is: all that `fit` knows beside the TrainState."""

from typing import NamedTuple

import numpy as np


class Position(NamedTuple):
    """How far a run is: plain numbers, for JSON.

    Attributes:
      epoch: epochs complete.
      batch: steps taken in the epoch begun.
      loss_sum: Σ of (objective × examples) over these steps.
      weight_sum: the examples of these steps.
      skipped: those of these steps that weren't taken, since their value or gradient wasn't finite.
      best: the best value so far of the metric of early stopping.
      stale: epochs since then.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    skipped: int = 0
    best: float | None = None
    stale: int = 0

    def after(self, values: np.ndarray, counts: np.ndarray) -> "Position":
        """The position some steps further, given the objective and the examples of each. Sums are taken one step after
        the other: they don't depend on how many steps come at once."""
        loss_sum, weight_sum, skipped = self.loss_sum, self.weight_sum, self.skipped
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if np.isfinite(value):
                loss_sum += value * count
                weight_sum += count
            else:
                skipped += 1
        return self._replace(batch=self.batch + len(values), loss_sum=loss_sum, weight_sum=weight_sum, skipped=skipped)

    @property
    def loss(self) -> float:
        """The mean over the examples of the epoch so far."""
        return self.loss_sum / self.weight_sum if self.weight_sum else float("nan")

    def next_epoch(self) -> "Position":
        """The beginning of the epoch that follows."""
        return Position(epoch=self.epoch + 1, best=self.best, stale=self.stale)
