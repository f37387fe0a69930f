"""How noisy is the gradient as training goes on, and which batch size does that suggest?

An mlp on scikit-learn's digits. Every step estimates |G|² and tr Σ from the factors of its own backward pass; their
means over some epochs give the noise scale B_simple = tr Σ / |G|² of McCandlish et al. (2018): batches far below it
waste steps, batches far above it waste examples.

    python experiments/gradient_noise.py
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study
from rich.table import Table

import handgrad as hg
from handgrad.checks import check_positive
from handgrad.training import init_state, train_step
from handgrad.training.digits import load_digits


@dataclass(frozen=True)
class Options:
    """The noise scale through training."""

    hidden: tuple[int, ...] = (64,)
    """Features of each hidden layer."""
    batch: int = 64
    """Examples in a mini-batch, 2 at least."""
    epochs: int = 100
    """Passes over the training set."""
    every: int = 10
    """How many of them make one row: late in training |G|² is small beside its own noise."""
    learning_rate: float = 0.2
    """Of plain gradient descent."""
    seed: int = 0
    """Of the initial parameters and the order of examples."""
    out: Path = Path("runs/gradient_noise")
    """Where figures.json and noise_scale.png go."""


def run(options: Options) -> list[dict[str, float]]:
    """Train, print, plot; a row for each epoch."""
    study.begin("gradient_noise", options, "epochs", "every", "batch", "hidden")
    check_positive("gradient_noise", "learning_rate", options.learning_rate)
    train, test = load_digits()
    if not 2 <= options.batch <= len(train.x):
        raise hg.InputError(f"gradient_noise: batch must be 2 to {len(train.x)}, the examples, got {options.batch}")
    model, loss = hg.mlp((64, *options.hidden, 10), hg.relu()), hg.softmax_cross_entropy()
    optimizer = optax.sgd(options.learning_rate)
    key, init_key = jax.random.split(jax.random.key(options.seed))
    state = init_state(jax.jit(model.init)(init_key, train.x[:1]), optimizer)
    step = train_step(model, loss, optimizer, noise_scale=True)

    @jax.jit
    def epoch(state, key):
        """Every example once; the mean of what each step returns."""
        order = jax.random.permutation(key, len(train.x))[: len(train.x) // options.batch * options.batch]
        batches = order.reshape(-1, options.batch)
        state, (values, scales) = jax.lax.scan(
            lambda state, rows: step(state, jnp.asarray(train.x)[rows], jnp.asarray(train.labels)[rows]), state, batches
        )
        answers = jnp.argmax(model.forward(state.params, test.x)[0], axis=-1)
        return state, (
            jnp.mean(values),
            jnp.mean(scales.sq_norm),
            jnp.mean(scales.trace),
            jnp.mean(answers == test.labels),
        )

    figures = []
    for epoch_key in jax.random.split(key, options.epochs):
        state, row = epoch(state, epoch_key)
        figures.append([float(figure) for figure in row])
    rows = []
    for start in range(0, options.epochs, options.every):
        some = np.array(figures[start : start + options.every])
        cost, sq_norm, trace, _ = some.mean(axis=0)
        rows.append(
            {
                "epoch": start + len(some),
                "cost": cost,
                "sq_norm": sq_norm,
                "trace": trace,
                "noise_scale": trace / sq_norm if sq_norm > 0 else float("inf"),
                "test_accuracy": some[-1, 3],
            }
        )
    plot(options.out / "noise_scale.png", rows, options.batch)
    study.publish(options.out / "figures.json", options, _table(rows), rows=rows)
    return rows


def plot(path: Path, rows: list[dict[str, float]], batch: int) -> None:
    """The noise scale and the batch size, and what it is made of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    scale, parts = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    scale.plot(epochs, [row["noise_scale"] for row in rows], "o-", label="noise scale: the batch size it suggests")
    scale.axhline(batch, color="tab:gray", linestyle="--", label=f"batch size of this run, {batch}")
    scale.set(xlabel="epoch", ylabel="examples", yscale="log", title="noise scale tr Σ / |G|²")
    for name, label in (
        ("trace", "tr Σ: variance of one example's gradient"),
        ("sq_norm", "|G|²: squared norm of the true gradient"),
    ):
        parts.plot(epochs, [row[name] if row[name] > 0 else np.nan for row in rows], "o-", label=label)
    parts.set(xlabel="epoch", ylabel="squared gradient", yscale="log", title="what it is made of")
    for axes in (scale, parts):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(f"digits, test accuracy at the end {100 * rows[-1]['test_accuracy']:.1f} %")
    figure.savefig(path, dpi=120)


def _table(rows: list[dict[str, float]]) -> Table:
    headings = "epoch", "cost", "|G|²", "tr Σ", "tr Σ / |G|²", "test accuracy"
    table = study.table("noise scale through training", *headings)
    for row in rows:
        numbers = f"{row['cost']:.4f}", f"{row['sq_norm']:.2e}", f"{row['trace']:.2e}", f"{row['noise_scale']:.0f}"
        table.add_row(str(row["epoch"]), *numbers, f"{100 * row['test_accuracy']:.1f} %")
    return table


if __name__ == "__main__":
    study.main(run, Options)
