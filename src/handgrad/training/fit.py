"""fit: epochs of shuffled mini-batches, each epoch one compiled scan."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.backprop import same_batch
from handgrad.checks import InputError, check_count
from handgrad.layers import Layer, Loss
from handgrad.training.step import TrainState, train_step

Data = tuple[PyTree, PyTree]
Metrics = dict[str, float]
Evaluate = Callable[[PyTree], Mapping[str, Array | float]]
# One compiled epoch: (state, x, target, key) -> (state, the objective of each step).
Epoch = Callable[[TrainState, PyTree, PyTree, PRNGKeyArray], tuple[TrainState, Float[Array, " steps"]]]


def fit(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Data,
    *,
    batch_size: int,
    epochs: int,
    key: PRNGKeyArray,
    evaluate: Evaluate | None = None,
    progress: bool = False,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Train, and yield the state and its metrics after each epoch.

    An epoch visits the examples in a new random order and drops the last incomplete mini-batch of that order. All
    randomness comes from `key`: the same call gives the same bits.

    Args:
      state: from `init_state`; it is not changed.
      data: (x, target), pytrees of arrays with the examples along axis 0 of each leaf: arrays, Sequences, a CtcTarget.
      key: for the order of examples and for the noise of layers such as dropout.
      evaluate: params -> metrics, called after each epoch.
      progress: True shows a progress bar (rich).
    Yields:
      (state, {"epoch", "train_loss" (mean over the epoch's steps), "seconds", and evaluate's}) after each epoch.
    Raises:
      InputError: before anything is computed: batch_size or epochs below 1; a batch larger than the data; x and
        target, or two leaves of one of them, with different numbers of examples.
    """
    check_count("fit", "batch_size", batch_size)
    check_count("fit", "epochs", epochs)
    examples = same_batch("fit", *data)
    if batch_size > examples:
        raise InputError(f"fit: batch_size must be at most the {examples} examples, got {batch_size}")
    epoch = jax.jit(_epoch(model, loss, optimizer, examples, batch_size))
    return _epochs(epoch, state, jax.tree.map(jnp.asarray, data), epochs, key, evaluate, progress)


def _epoch(model: Layer, loss: Loss, optimizer: optax.GradientTransformation, n: int, batch_size: int) -> Epoch:
    """One pass over n examples."""
    step = train_step(model, loss, optimizer)
    steps = n // batch_size

    def epoch(state, x, target, key):
        order_key, noise_key = jax.random.split(key)
        order = jax.random.permutation(order_key, n)[: steps * batch_size].reshape(steps, batch_size)

        def one_step(state, batch_and_key):
            batch, k = batch_and_key
            of_batch = jax.tree.map(lambda leaf: leaf[batch], (x, target))
            return step(state, *of_batch, key=k)

        return jax.lax.scan(one_step, state, (order, jax.random.split(noise_key, steps)))

    return epoch


def _epochs(
    epoch: Epoch,
    state: TrainState,
    data: Data,
    epochs: int,
    key: PRNGKeyArray,
    evaluate: Evaluate | None,
    progress: bool,
) -> Iterator[tuple[TrainState, Metrics]]:
    """The generator behind `fit`, which checks its arguments when it is called and not at the first `next`."""
    with ProgressBar(epochs) if progress else contextlib.nullcontext() as bar:
        for number, k in enumerate(jax.random.split(key, epochs), start=1):
            start = time.perf_counter()
            state, losses = epoch(state, *data, k)
            metrics = {"epoch": number, "train_loss": float(np.mean(losses)), "seconds": time.perf_counter() - start}
            metrics |= {name: float(value) for name, value in (evaluate(state.params) if evaluate else {}).items()}
            if bar:
                bar.advance(metrics)
            yield state, metrics


class ProgressBar:
    """rich's bar, with the latest loss and test accuracy beside it."""

    def __init__(self, epochs: int):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = TextColumn("{task.description}")
        self._progress = Progress(TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), text, TimeRemainingColumn())
        self._task = self._progress.add_task("", total=epochs)

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, metrics: dict[str, float]) -> None:
        """One epoch further."""
        shown = (f"{name} {metrics[name]:.4f}" for name in ("train_loss", "test_accuracy") if name in metrics)
        self._progress.update(self._task, advance=1, description="  ".join(shown))
