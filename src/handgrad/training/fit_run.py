"""fit in a run's folder: from the beginning, or from where it was left."""

from typing import Any

import optax

from handgrad.layers import Layer, Loss
from handgrad.training.batches import Data
from handgrad.training.checkpoints import Checkpoints
from handgrad.training.fit import fit
from handgrad.training.position import Position
from handgrad.training.runs import Run, read_metrics
from handgrad.training.state import TrainState


def fit_run(
    run: Run,
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Data,
    *,
    epochs: int,
    best: str | None = None,
    **options: Any,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """`fit` with checkpoints in the run's folder, its metrics appended to metrics.jsonl. A run that was left goes on
    with the same bits, to the same metrics; one that is complete is read.

    Args:
      epochs: of the whole run.
      best: one of evaluate's metrics, a loss: the checkpoint of the epoch with the least is kept too.
      **options: as `fit`'s.
    Returns:
      The state after the last epoch, and the metrics of all of them.
    Raises:
      As `fit`, `Checkpoints` and `Run`.
    """
    with Checkpoints(run.checkpoints, best=best) as checkpoints:
        state, position = checkpoints.restore(state) or (state, Position())
        if position.epoch < epochs:
            further = {"epochs": epochs - position.epoch, "position": position, "checkpoints": checkpoints, **options}
            for reached, metrics in fit(model, loss, optimizer, state, data, **further):
                state = reached
                run.append(metrics)
    return state, read_metrics(run.folder)
