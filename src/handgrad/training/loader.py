"""Batches in an order that a seed gives, prepared while the steps before them run; sequences in buckets by length."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from handgrad.backprop import same_batch
from handgrad.checks import InputError, check_count
from handgrad.extras import install
from handgrad.layers import Sequences
from handgrad.training.evaluation import Pair

AHEAD = 8  # batches that are prepared before they are needed


class Loader:
    """Batches for `fit`: `fit(model, loss, optimizer, state, Loader((x, target), 32, seed=0), epochs=3)`.

    Every example comes once before any comes again, in an order that is another one each time and depends on the seed
    alone. All batches have one size: where that doesn't divide the examples, their last batch is filled up with
    examples of weight 0. Batches are made by grain, in a thread. (Data that isn't read from anywhere, nor cut into
    epochs of its own, needs no Loader: `fit` takes arrays.)

    Args:
      data: (x, target), pytrees of arrays with the examples along axis 0, in memory or mapped from a file; or a list
        of such pairs, as `by_length` makes: then all examples of a batch are from one of them.
      batch_size: examples in a batch.
      seed: of the order.
      steps: batches in an epoch; the next epoch goes on where it ended. None is once over the data.
    Raises:
      InputError: a count below 1; x and target with different numbers of examples, or with none; grain is not
        installed.
    """

    def __init__(self, data: Pair | list[Pair], batch_size: int, *, seed: int, steps: int | None = None):
        check_count("Loader", "batch_size", batch_size)
        if steps is not None:
            check_count("Loader", "steps", steps)
        parts: list[Pair] = [data] if isinstance(data, tuple) else data
        sizes = [same_batch("Loader", *part) for part in parts]
        if not sizes or 0 in sizes:
            raise InputError("Loader: data must have examples, got none")
        self._batch_size, self._grain = batch_size, _grain()
        self._parts: list[Pair] = [jax.tree.map(np.asarray, part) for part in parts]
        self._fills_up = any(size % batch_size for size in sizes)
        self._batches = self._all_batches(sizes, seed)
        self._steps = steps or len(self._batches)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._steps

    def __iter__(self) -> Iterator[tuple[PyTree, ...]]:
        """The batches of the first epoch."""
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[tuple[PyTree, ...]]:
        """The batches of an epoch, (x, target) or (x, target, weights)."""
        chosen = self._batches.repeat()[number * self._steps : (number + 1) * self._steps]
        options = self._grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
        return iter(chosen.to_iter_dataset(options))

    def _all_batches(self, sizes: Sequence[int], seed: int) -> Any:
        """One pass over the data as grain's dataset. What comes after it is the next pass, in another order."""
        *seeds, last = np.random.SeedSequence(seed).generate_state(len(sizes) + 1).tolist()
        dataset = self._grain.MapDataset

        def batches(part: Pair, size: int, seed: int) -> Any:
            rows = dataset.range(size).shuffle(seed=seed).batch(self._batch_size)
            return rows.map(lambda rows: self._batch(part, rows))

        each = [batches(*of_part) for of_part in zip(self._parts, sizes, seeds, strict=True)]
        return dataset.concatenate(each).shuffle(seed=last)

    def _batch(self, part: Pair, rows: Int[np.ndarray, " count"]) -> tuple[PyTree, ...]:
        place = np.arange(self._batch_size)
        x, target = jax.tree.map(lambda leaf: leaf[rows[place % len(rows)]], part)
        if not self._fills_up:
            return x, target
        return x, target, np.where(place < len(rows), np.float32(1 / len(rows)), np.float32(0))


def by_length(sequences: Sequence[np.ndarray], target: PyTree, lengths: Sequence[int]) -> list[Pair]:
    """Sequences of many lengths as a few arrays, for a Loader: each in the first bucket that is long enough, padded
    with zeros to the bucket's length. A step is compiled once for each bucket.

    >>> buckets = by_length([np.ones(2), np.ones(5), np.ones(3)], np.array([7, 8, 9]), [3, 6])
    >>> [(x.X.shape, x.lengths.tolist(), labels.tolist()) for x, labels in buckets]
    [((2, 3), [2, 3], [7, 9]), ((1, 6), [5], [8])]

    Args:
      sequences: arrays with time along axis 0, alike in all other axes.
      target: a pytree of arrays with the sequences along axis 0, as the loss takes it.
      lengths: those of the buckets, ascending.
    Returns:
      [(Sequences(X, lengths), target)], without the buckets that are empty.
    Raises:
      InputError: not one target for each sequence; a sequence is empty or longer than the last bucket; the lengths of
        the buckets don't ascend.
    """
    if list(lengths) != sorted(set(lengths)) or not lengths:
        raise InputError(f"by_length: lengths must be ascending, got {list(lengths)}")
    sizes = np.array([len(sequence) for sequence in sequences])
    same_batch("by_length", sizes, target)
    if wrong := sizes[(sizes < 1) | (sizes > lengths[-1])].tolist():
        raise InputError(f"by_length: each sequence must have 1 to {lengths[-1]} steps, got one of {wrong[0]}")
    buckets, of_sequence = [], np.searchsorted(lengths, sizes)
    for bucket, length in enumerate(lengths):
        rows = np.flatnonzero(of_sequence == bucket)
        if rows.size:
            padded = np.stack([_padded(sequences[row], length) for row in rows.tolist()])
            x = Sequences(padded, jnp.asarray(sizes[rows]))
            buckets.append((x, jax.tree.map(lambda leaf: leaf[rows], target)))  # noqa: B023
    return buckets


def _padded(sequence: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sequence, [(0, length - len(sequence)), *[(0, 0)] * (sequence.ndim - 1)])


def _grain() -> ModuleType:
    try:
        import grain
    except ModuleNotFoundError:
        raise InputError(f"Loader: needs grain: {install('data')}") from None
    return grain
