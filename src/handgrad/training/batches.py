"""Where the mini-batches of `fit` come from: arrays in memory, visited by one compiled loop, or an iterable."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from handgrad.backprop import Weights, same_batch
from handgrad.checks import InputError, check_count, check_shape, describe
from handgrad.training.arguments import BATCHES
from handgrad.training.state import TrainState
from handgrad.training.step import Scalar, Step

ORDER = 2**32 - 1  # folded into the state's key for the order of examples: the number of no step
SECONDS = 0.2  # about as long as steps run before the host hears of them
Data = tuple[PyTree, PyTree] | tuple[PyTree, PyTree, Weights] | Iterable[tuple[PyTree, ...]]


class Batch(NamedTuple):
    """A mini-batch. Weights None stands for the mean; padding has weight 0."""

    x: PyTree
    target: PyTree
    weights: Weights = None


Inspect = Callable[[TrainState, Batch], None]


class Chunk(NamedTuple):
    """Some steps further.

    Attributes:
      state: after them.
      values: the objective of each.
      counts: how many examples each took.
    """

    state: TrainState
    values: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What is done with each batch.

    Attributes:
      step: an optimizer's.
      stops: whether a value that isn't finite ends the epoch.
      inspect: is shown the state and the batch of every `every`th step before it is taken.
      place: puts a batch onto its devices; traced for data in memory.
    """

    step: Step[Scalar]
    stops: bool
    inspect: Inspect | None = None
    every: int = 1
    place: Callable[[Batch], Batch] = lambda batch: batch


class Source(Protocol):
    """The batches of each epoch."""

    @property
    def steps(self) -> int | None:
        """The steps of an epoch, where they are known before its end."""
        ...

    def epoch(self, state: TrainState, number: int, done: int) -> Iterator[Chunk]:
        """The steps of an epoch after the first `done`; none after one that must stop."""
        ...


class Pace:
    """How many steps are taken before the host hears of them: as many as take about SECONDS, on all processes alike."""

    def __init__(self) -> None:
        self.steps = 1

    def took(self, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        length = min(2 * self.steps, 1 + int(steps * SECONDS / max(seconds, 1e-9)))
        if jax.process_count() > 1:
            length = int(multihost_utils.broadcast_one_to_all(np.int32(length)))
        self.steps = length


class InMemory:
    """Arrays with the examples along axis 0, visited in a new random order each epoch. The last batch of an epoch is
    filled up with its own examples, of weight 0. Given weights of examples, a step takes the weighted mean over its
    batch."""

    def __init__(self, plan: Plan, data: tuple[PyTree, ...], batch_size: int | None):
        x, target, weights = *data, *(None,) * (3 - len(data))
        self.examples = same_batch("fit", x, target)
        if weights is not None:
            check_shape("fit", "weights", weights, (self.examples,), "one for each example")
        check_count("fit", "batch_size", batch_size)
        assert batch_size is not None
        if batch_size > self.examples:
            raise InputError(f"fit: batch_size must be at most the {self.examples} examples, got {batch_size}")
        self.steps = -(-self.examples // batch_size)
        self._plan, self._size, self._pace = plan, batch_size, Pace()
        self._data = jax.tree.map(jnp.asarray, (x, target, weights))
        self._run = jax.jit(self._chunk, donate_argnums=0)
        self._pick = jax.jit(self._batch)

    def epoch(self, state: TrainState, number: int, done: int) -> Iterator[Chunk]:
        order = order_of(state.key, number, self.examples)
        state = jax.tree.map(jnp.copy, state)  # the caller keeps the one before: only copies are donated
        losses = jnp.zeros(self.steps)
        while done < self.steps:
            stop = min(done + self._pace.steps, self.steps)
            if self._plan.inspect:
                taken = number * self.steps + done
                stop = min(stop, done + self._plan.every - taken % self._plan.every)
                if taken % self._plan.every == 0:
                    self._plan.inspect(state, self._pick(self._data, order, done))
            start = time.perf_counter()
            state, losses, reached = self._run(state, losses, self._data, order, done, stop)
            steps = np.arange(done, int(reached))
            self._pace.took(len(steps), time.perf_counter() - start)
            yield Chunk(state, np.asarray(losses)[steps], self._counts(order, steps))
            done += len(steps)

    def _chunk(self, state: TrainState, losses: Array, data: PyTree, order: Array, start: Array, stop: Array):
        """The steps from start to stop, or to the first whose value isn't finite."""

        def goes_on(carry):
            _, losses, i = carry
            well = (i == start) | jnp.isfinite(losses[i - 1]) if self._plan.stops else True
            return (i < stop) & well

        def one(carry):
            state, losses, i = carry
            state, value = self._plan.step(state, *self._batch(data, order, i))
            return state, losses.at[i].set(value.astype(losses.dtype)), i + 1

        return jax.lax.while_loop(goes_on, one, (state, losses, start))

    def _batch(self, data: PyTree, order: Int[Array, " n"], index: Int[Array, ""]) -> Batch:
        """Batch `index` of an epoch in this order."""
        start, row = index * self._size, jnp.arange(self._size)
        count = jnp.minimum(self.examples - start, self._size)
        chosen = order[start + row % count]
        x, target, weights = jax.tree.map(lambda leaf: leaf[chosen], data)
        if weights is None and self.examples % self._size == 0:
            return self._plan.place(Batch(x, target))
        real = (row < count) * (1.0 if weights is None else weights)
        return self._plan.place(Batch(x, target, real / jnp.maximum(jnp.sum(real), jnp.finfo(real.dtype).tiny)))

    def _counts(self, order: Array, steps: np.ndarray) -> np.ndarray:
        """The examples, or their weight, that each of these steps took."""
        if self._data[2] is None:
            return np.minimum(self._size, self.examples - self._size * steps)
        weights = np.asarray(self._data[2])[np.asarray(order)]
        return np.array([np.sum(weights[step * self._size : (step + 1) * self._size]) for step in steps])


class Streamed:
    """An iterable of batches, one iteration an epoch; or an object whose `epoch(number)` is one.

    A batch smaller than the first is filled up with its own examples, of weight 0: all have one shape, and the step is
    compiled once.
    """

    def __init__(self, plan: Plan, data: Any):
        self.steps: int | None = len(data) if hasattr(data, "__len__") else None
        self._plan, self._data, self._pace = plan, data, Pace()
        self._step = jax.jit(_while_finite(plan.step, plan.stops), donate_argnums=0)

    def epoch(self, state: TrainState, number: int, done: int) -> Iterator[Chunk]:
        state = jax.tree.map(jnp.copy, state)
        well, first = jnp.array(True), int(state.step)
        values, counts = [], []
        size, start = 0, time.perf_counter()
        batches = self._data.epoch(number) if hasattr(self._data, "epoch") else iter(self._data)
        for index, batch in enumerate(itertools.islice(batches, done, None), start=done):
            padded, count = filled(batch, size)
            size = same_batch("fit", padded.x, padded.target)
            placed = self._plan.place(padded)
            if self._plan.inspect and (first + index - done) % self._plan.every == 0:
                self._plan.inspect(state, placed)
            state, well, value = self._step(state, well, placed)
            values.append(value)
            counts.append(count)
            if len(values) >= self._pace.steps:
                taken, counted = np.array(values), np.array(counts)
                self._pace.took(len(values), time.perf_counter() - start)
                yield Chunk(state, taken, counted)
                values, counts, start = [], [], time.perf_counter()
        if size == 0 and done == 0:
            used_up = " (a generator is used up after one)" if isinstance(self._data, Iterator) else ""
            raise InputError(f"fit: data must have a batch for each epoch, got none for epoch {number + 1}{used_up}")
        if values:
            yield Chunk(state, np.array(values), np.array(counts))


def order_of(key: PRNGKeyArray | None, epoch: int, examples: int) -> Int[Array, " examples"]:
    """The order of an epoch's examples."""
    assert key is not None  # fit has checked it
    return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch), examples)


def filled(batch: tuple[PyTree, ...], size: int) -> tuple[Batch, int]:
    """The batch filled up to `size` examples with its own, of weight 0; and how many count, with a weight that isn't 0.

    Raises:
      InputError: it isn't (x, target) or (x, target, weights); it is larger than `size`, which is 0 for the first.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise InputError(f"fit: data must be {BATCHES}, got a batch that is {describe(batch)}")
    x, target, weights = *batch, *(None,) * (3 - len(batch))
    count = same_batch("fit", x, target)
    if weights is not None:
        check_shape("fit", "weights", weights, (count,), "one for each example")
    real = count if weights is None else int(np.count_nonzero(np.asarray(weights)))
    if size in (0, count):
        return Batch(x, target, weights), real
    if count > size:
        raise InputError(f"fit: a batch must be no larger than the first, of {size} examples, got {count}")
    places = np.arange(size) % count
    weights = np.full(count, 1 / count, np.float32) if weights is None else np.asarray(weights)
    weights = np.concatenate([weights, np.zeros(size - count, weights.dtype)])
    x, target = jax.tree.map(lambda leaf: np.asarray(leaf)[places], (x, target))
    return Batch(x, target, weights), real


def _while_finite(
    step: Step[Scalar], stops: bool
) -> Callable[[TrainState, Array, Batch], tuple[TrainState, Array, Array]]:
    """The step; with `stops` it does nothing more once a value wasn't finite."""

    def one(state: TrainState, well: Array, batch: Batch):
        def take(state: TrainState) -> tuple[TrainState, Array]:
            return step(state, batch.x, batch.target, batch.weights)

        like = jax.eval_shape(take, state)[1]
        nothing = jnp.full(like.shape, jnp.nan, like.dtype)
        state, value = jax.lax.cond(well, take, lambda state: (state, nothing), state)
        return state, (well & jnp.isfinite(value)) if stops else well, value

    return one
