"""What does the training loop cost over the bare compiled step?

The digits mlp for some epochs three ways, in turn: `fit` with its progress bar and metrics, the bare step called from
Python batch by batch, and the bare step in one compiled scan over an epoch's batches.

    python experiments/training_loop.py
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import study

import handgrad as hg
from handgrad.training import fit, init_state, train_step
from handgrad.training.batches import order_of
from handgrad.training.digits import load_digits


@dataclass(frozen=True)
class Options:
    """Time the loop against the step."""

    hidden: tuple[int, ...] = (256, 128)
    """Features of each hidden layer."""
    batch: int = 32
    """Examples in a mini-batch; it divides 1,408, the examples that are used."""
    epochs: int = 40
    """Passes over the training set."""
    repeats: int = 9
    """How many turns."""
    out: Path = Path("runs/training_loop.json")
    """A JSON file for the figures."""


def seconds(way: Callable[[], Any]) -> float:
    """Wall time until its result is there."""
    start = time.perf_counter()
    jax.block_until_ready(way())
    return time.perf_counter() - start


def run(options: Options) -> dict[str, Any]:
    """The medians of the ratios of wall time."""
    study.begin("training_loop", options, "hidden", "batch", "epochs", "repeats")
    train, _ = load_digits()
    x, labels = jnp.asarray(train.x[:1408]), jnp.asarray(train.labels[:1408])
    if len(labels) % options.batch:
        raise hg.InputError(f"training_loop: batch must divide {len(labels)}, got {options.batch}")
    model, loss, optimizer = hg.mlp((64, *options.hidden, 10), hg.relu()), hg.softmax_cross_entropy(), optax.adam(2e-3)
    init_key, key = jax.random.split(jax.random.key(0))
    state = init_state(jax.jit(model.init)(init_key, x[:1]), optimizer, key)
    step = train_step(model, loss, optimizer, check_finite=True)

    def of_batch(state, order, i):
        rows = jax.lax.dynamic_slice_in_dim(order, i * options.batch, options.batch)
        return step(state, x[rows], labels[rows])

    steps = len(labels) // options.batch
    one = jax.jit(of_batch, donate_argnums=0)
    whole = jax.jit(lambda state, order: jax.lax.scan(lambda s, i: of_batch(s, order, i), state, jnp.arange(steps)))

    def by_fit():
        """Without its first epoch, which compiles."""
        epochs = fit(
            model, loss, optimizer, state, (x, labels),
            batch_size=options.batch, epochs=options.epochs + 1, progress=True,
        )  # fmt: skip
        next(epochs)
        return seconds(lambda: [last for last, _ in epochs][-1])

    def by_steps():
        now = jax.tree.map(jnp.copy, state)
        for epoch in range(options.epochs):
            order = order_of(key, epoch, len(labels))
            for i in range(steps):
                now, _ = one(now, order, i)
        return now

    def by_scan():
        now = state
        for epoch in range(options.epochs):
            now, _ = whole(now, order_of(key, epoch, len(labels)))
        return now

    ways = {"fit": by_fit, "step by step": lambda: seconds(by_steps), "scan": lambda: seconds(by_scan)}
    times = {name: [] for name in ways}
    for turn in range(1 + options.repeats):
        for name in reversed(tuple(ways)) if turn % 2 else ways:
            times[name].append(ways[name]())
    times = {name: of_way[1:] for name, of_way in times.items()}  # the first turn compiles
    figures = {name: study.ratio(times["fit"], times[name]) for name in ("step by step", "scan")}
    table = study.table(f"fit, {options.epochs} epochs of {steps} steps, over", "", "ratio of wall time")
    for name, ratio in figures.items():
        table.add_row(f"the bare step, {name}", f"{ratio:.3f}")
    study.publish(options.out, options, table, **figures)
    return figures


if __name__ == "__main__":
    study.main(run, Options)
