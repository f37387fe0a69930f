"""Which learning rate, and how much is luck?

A classifier of digits trained at many learning rates from many seeds at once: one vmapped, jitted program for all of
them, then the test accuracy over the learning rate, a band for the seeds.

    python experiments/sweep.py
    python experiments/sweep.py --seeds 16 --rates 0.01 0.1 1
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study
from matplotlib.figure import Figure

import handgrad as hg
from handgrad.checks import check_positive
from handgrad.training import correct, init_state, train_step
from handgrad.training.digits import load_digits


@dataclass(frozen=True)
class Options:
    """Learning rates and seeds, all at once."""

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates of plain gradient descent."""
    seeds: int = 8
    """How many: 0, 1, …, of the initial parameters and the order of examples."""
    hidden: tuple[int, ...] = (64,)
    """Features of each hidden layer."""
    batch: int = 64
    """Examples in a mini-batch."""
    epochs: int = 10
    """Passes over the training set."""
    out: Path = Path("runs/sweep")
    """Where sweep.png and figures.json go."""


def run(options: Options) -> dict[str, Any]:
    """(rates, seeds) of test accuracies and training losses."""
    study.begin("sweep", options, "seeds", "hidden", "batch", "epochs")
    for rate in options.rates:
        check_positive("sweep", "rates", rate)
    train, test = load_digits()
    if options.batch > len(train.labels):
        raise hg.InputError(f"sweep: batch must be at most the {len(train.labels)} examples, got {options.batch}")
    x, labels, test_x, test_labels = map(jnp.asarray, (*train, *test))
    model, loss = hg.mlp((64, *options.hidden, 10), hg.relu()), hg.softmax_cross_entropy()
    batches = len(labels) // options.batch

    def one(rate: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The test accuracy, and the mean training loss of the last epoch."""
        optimizer = optax.sgd(rate)
        step = train_step(model, loss, optimizer)
        init_key, key = jax.random.split(jax.random.key(seed))
        state = init_state(model.init(init_key, x[:1]), optimizer)

        def epoch(state, key):
            order = jax.random.permutation(key, len(labels))[: batches * options.batch].reshape(batches, -1)
            return jax.lax.scan(lambda state, rows: step(state, x[rows], labels[rows]), state, order)

        state, values = jax.lax.scan(epoch, state, jax.random.split(key, options.epochs))
        prediction, _ = model.forward(state.params, test_x)
        return jnp.mean(correct(prediction, test_labels)), jnp.mean(values[-1])

    of_seeds = jax.vmap(one, (None, 0))
    of_all = jax.jit(jax.vmap(of_seeds, (0, None)))
    accuracy, cost = map(np.asarray, of_all(jnp.array(options.rates), jnp.arange(options.seeds)))

    headings = "learning rate", "test accuracy", "worst seed", "best seed", "training loss"
    table = study.table(f"{options.epochs} epochs, {options.seeds} seeds each", *headings)
    for rate, hits, costs in zip(options.rates, accuracy, cost, strict=True):
        numbers = (f"{100 * value:.2f} %" for value in (np.mean(hits), np.min(hits), np.max(hits)))
        table.add_row(f"{rate:g}", *numbers, f"{np.mean(costs):.3g}")
    plot(options, accuracy)
    figures = {"test_accuracy": accuracy.tolist(), "train_loss": [[float(c) for c in row] for row in cost]}
    study.publish(options.out / "figures.json", options, table, **figures)
    return figures


def plot(options: Options, accuracy: np.ndarray) -> None:
    """Test accuracy over the learning rate."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    percent = 100 * accuracy
    axes.fill_between(options.rates, percent.min(axis=1), percent.max(axis=1), alpha=0.2, label="all seeds")
    axes.semilogx(options.rates, percent.mean(axis=1), "o-", label=f"mean of {options.seeds} seeds")
    axes.set(
        xlabel="learning rate", ylabel="test accuracy (%)", title=f"digits, {options.epochs} epochs of gradient descent"
    )
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(options.out / "sweep.png", dpi=120)


if __name__ == "__main__":
    study.main(run, Options)
