"""Do hand-written gradients train the same network as autodiff's, step for step?

The same digits classifier twice from the same start, by hand and by jax.grad: losses and parameters for 1,000 steps,
in float64, where they agree to rounding, and in float32, where rounding grows as it does between any two programs.

    python experiments/hand_and_autodiff.py
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
from handgrad.training import init_state, train_step
from handgrad.training.digits import load_digits


@dataclass(frozen=True)
class Options:
    """Train by hand and by autodiff, and compare."""

    steps: int = 1000
    """How many."""
    hidden: tuple[int, ...] = (128, 64)
    """Features of each hidden layer."""
    batch: int = 64
    """Examples in a mini-batch."""
    learning_rate: float = 0.1
    """Of gradient descent with momentum 0.9."""
    seed: int = 0
    """Of the initial parameters and the mini-batches."""
    out: Path = Path("runs/hand_and_autodiff")
    """Where curves.png and figures.json go."""


def run(options: Options) -> dict[str, Any]:
    """The largest difference of the losses, and of the parameters at the end, in both precisions."""
    study.begin("hand_and_autodiff", options, "steps", "batch", "hidden")
    check_positive("hand_and_autodiff", "learning_rate", options.learning_rate)
    curves, figures = {}, {}
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            ways = {by: trained(options, by, dtype) for by in ("hand", "autodiff")}
        (by_hand, hand), (by_autodiff, autodiff) = ways["hand"], ways["autodiff"]
        curves[dtype] = by_hand, by_autodiff
        errors = [study.relative_error(a, b) for a, b in zip(hand, autodiff, strict=True)]
        figures[dtype] = {
            "loss_first": float(by_hand[0]),
            "loss_last": float(by_hand[-1]),
            "loss_difference": float(np.max(np.abs(by_hand - by_autodiff))),
            "params_difference": max(errors),
        }
    table = study.table(
        f"by hand and by autodiff, {options.steps:,} steps", "dtype", "loss", "largest difference", "of parameters"
    )
    for dtype, one in figures.items():
        table.add_row(
            dtype,
            f"{one['loss_first']:.3f} → {one['loss_last']:.2g}",
            f"{one['loss_difference']:.1e}",
            f"{one['params_difference']:.1e}",
        )
    plot(options.out / "curves.png", curves)
    study.publish(options.out / "figures.json", options, table, **figures)
    return figures


def trained(options: Options, by: Any, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The loss of each step, and the parameters after the last."""
    train, _ = load_digits()
    x, labels = jnp.asarray(train.x, dtype), jnp.asarray(train.labels)
    model, loss = hg.mlp((64, *options.hidden, 10), hg.tanh()), hg.softmax_cross_entropy()
    optimizer = optax.sgd(options.learning_rate, momentum=0.9)
    init_key, key = jax.random.split(jax.random.key(options.seed))
    step = train_step(model, loss, optimizer, by=by)

    @jax.jit
    def run(state, batches):
        return jax.lax.scan(lambda state, rows: step(state, x[rows], labels[rows]), state, batches)

    state = init_state(jax.jit(model.init)(init_key, x[:1]), optimizer)
    state, values = run(state, jax.random.randint(key, (options.steps, options.batch), 0, len(labels)))
    return np.asarray(values), [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


def plot(path: Path, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Both curves, and their difference."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, difference = figure.subplots(1, 2)
    by_hand, by_autodiff = curves["float64"]
    steps = np.arange(1, len(by_hand) + 1)
    loss.semilogy(steps, by_autodiff, linewidth=3, color="tab:orange", alpha=0.5, label="jax.grad")
    loss.semilogy(steps, by_hand, linewidth=0.8, label="by hand")
    loss.set(xlabel="step", ylabel="loss of the mini-batch (nats)", title="one curve, twice (float64)")
    for dtype, (one, two) in curves.items():
        gap = np.abs(one - two)
        difference.semilogy(steps, np.where(gap == 0, np.nan, gap), ".", markersize=2, label=dtype)
    difference.set(xlabel="step", ylabel="|difference of the losses|, where not 0", title="rounding, and nothing else")
    for axes in (loss, difference):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    study.main(run, Options)
