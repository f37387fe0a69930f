"""fit: epochs of mini-batches, from arrays in memory or an iterable, that survive what happens to them."""

from collections.abc import Iterator, Sequence
from typing import Literal, Unpack

import optax

from handgrad.backprop import Key
from handgrad.checks import InputError, check_choice, check_count
from handgrad.layers import Layer, Loss
from handgrad.training.arguments import (
    OF_A_STEP,
    check_layout,
    check_optimizer,
    check_options,
    check_state,
    is_in_memory,
)
from handgrad.training.batches import Data, InMemory, Plan, Streamed
from handgrad.training.checkpoints import Checkpoints
from handgrad.training.epochs import Callback, Epochs
from handgrad.training.evaluation import EarlyStopping, Evaluate, Metrics
from handgrad.training.layouts import Layout, on_mesh
from handgrad.training.live_check import live_check
from handgrad.training.position import Position
from handgrad.training.state import TrainState
from handgrad.training.step import StepOptions, train_step


def fit(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Key = None,
    evaluate: Evaluate | None = None,
    nonfinite: Literal["stop", "skip"] = "stop",
    early_stopping: EarlyStopping | None = None,
    check_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: Checkpoints | None = None,
    position: Position | None = None,
    layout: Layout | None = None,
    progress: bool = False,
    **options: Unpack[StepOptions],
) -> Iterator[tuple[TrainState, Metrics]]:
    """Train, and yield the state and its metrics after each epoch.

    An epoch visits every example once, in a new random order; its last batch is filled up with examples of weight 0.
    All randomness comes from the state's key, the number of the epoch and that of the step: two epochs and two more are
    four, and a run that is resumed from a checkpoint goes on with the same bits.

    Args:
      state: from `init_state`; it is not changed.
      data: (x, target) or (x, target, weights), pytrees of arrays with the examples along axis 0 of each leaf: arrays,
        Sequences, a CtcTarget. With weights, each step takes the weighted mean over its batch,
        Σ w_b loss_b / Σ w_b. An iterable's weights are taken as they are: Σ w_b loss_b.
        Or an iterable of batches, (x, target) or (x, target, weights), in its own order: each iteration is an epoch,
        so a generator, which is used up after one, lasts for one epoch. If it has a method `epoch`,
        `data.epoch(number)` is iterated instead, from number 0.
      epochs: how many to train, counting one that `position` is in.
      batch_size: examples in a batch, for data in memory alone.
      key: of the run, where the state has none.
      evaluate: params -> metrics, called after each epoch: see `evaluation`.
      nonfinite: what to do where a value or a gradient has an infinity or a NaN. "stop" raises NotFiniteError; "skip"
        leaves the step out and counts it in the metrics as "skipped".
      early_stopping: stops when one of evaluate's metrics no longer improves.
      check_every: N compares the gradient with autodiff's at every Nth step, on the parameters and the batch that it is
        at, and raises GradientError with the checker's report if they differ.
      callbacks: (state, metrics) -> None, called in turn after each epoch; True stops.
      checkpoints: where to save the run: when they are due, after the last epoch, and on SIGTERM and Ctrl-C.
      position: where `checkpoints.restore` found it; None is after as many epochs as state.step has, 0 for
        an iterable.
      layout: where the state and the batches are placed on several devices; on several hosts, each has all the data, or
        an iterable of batches that `layout.place_batch` has made of parts. None leaves them where they are.
      progress: True shows a progress bar (rich).
      **options: `by`, `micro_batches`, `compute_dtype`: see StepOptions.
    Yields:
      (state, metrics) after each epoch: "epoch", "step", "loss" (the mean over the examples of the epoch, each before
      its step), "skipped" (steps, where any were), and evaluate's.
    Raises:
      InputError: before anything is computed: an argument of the wrong kind, or a state of another optimizer; a count
        below 1; a batch larger than the data, or that the layout's mesh
        doesn't divide; x and target, or two leaves of one of them, with different numbers of examples; no key. While
        training: an iterable without a batch, or with one larger than its first; evaluate has no such metric.
      NotFiniteError, GradientError: see nonfinite and check_every.
      Interrupted: by a signal, after saving.
    """
    check_count("fit", "epochs", epochs)
    check_choice("fit", "nonfinite", nonfinite, ("stop", "skip"))
    check_options("fit", options, OF_A_STEP)
    check_optimizer("fit", optimizer)
    check_state("fit", state, optimizer)
    check_layout("fit", layout)
    if state.key is None and key is None:
        raise InputError("fit: state must have a key, as init_state(params, optimizer, key) makes it, or key be given")
    state = state if state.key is not None else state._replace(key=key)
    if check_every is not None:
        check_count("fit", "check_every", check_every)
    if early_stopping is not None:
        check_count("fit", "early_stopping.patience", early_stopping.patience)
    model = layout.gathered(model) if layout else model
    plan = Plan(
        step=train_step(model, loss, optimizer, check_finite=True, **options),
        stops=nonfinite == "stop",
        inspect=live_check(model, loss) if check_every else None,
        every=check_every or 1,
        place=layout.place_batch if layout else lambda batch: batch,
    )
    if is_in_memory(data, "fit", batch_size):
        source = InMemory(plan, data, batch_size)
        first = Position(epoch=int(state.step) // source.steps)
        if layout is not None and batch_size is not None:
            layout.check_batch("fit", "batch_size", batch_size)
    else:
        source, first = Streamed(plan, data), Position()
    run = Epochs(source, plan.stops, evaluate, early_stopping, tuple(callbacks), checkpoints)
    if layout is None:
        return run.after(state, position or first, epochs, progress)
    return on_mesh(layout.mesh, run.after(layout.place(state), position or first, epochs, progress))
