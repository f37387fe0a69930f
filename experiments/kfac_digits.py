"""Does K-FAC train faster than Adam, in steps and in seconds, on scikit-learn's digits?

One network, one order of mini-batches, both optimizers at each of several learning rates that fall to 0 along a cosine.
What counts for an optimizer is its best rate: the one whose loss is lowest at the end. Compiling is left out of the
seconds; every epoch is one compiled program, K-FAC's inversions included, and the optimizers' epochs run in turn.

    OPENBLAS_NUM_THREADS=1 python experiments/kfac_digits.py
    OPENBLAS_NUM_THREADS=1 python experiments/kfac_digits.py --result docs/results/kfac_digits.json

One thread of BLAS for the matrices to invert, which are small: several of them wait for each other, for milliseconds
where other programs have the cores.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study

import handgrad as hg
from handgrad.checks import InputError, check_count, check_positive
from handgrad.folds.curvature import kfac_factors
from handgrad.training import init_state, kfac_step, scale_by_kfac, train_step
from handgrad.training.digits import load_digits

LOSS = hg.softmax_cross_entropy()
THRESHOLDS = (1e-1, 1e-2, 1e-3)


@dataclass(frozen=True)
class KfacDigits:
    """K-FAC against Adam on handwritten digits."""

    sizes: tuple[int, ...] = (128, 64)
    """Features of each hidden layer, with tanh behind it."""
    batch: int = 128
    """Examples in a mini-batch."""
    epochs: int = 30
    """Passes over the training set."""
    adam_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    """Learning rates of Adam."""
    kfac_rates: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Learning rates of K-FAC."""
    damping: float = 1e-3
    """λ of K-FAC."""
    norm_constraint: float = 0.1
    """The most that K-FAC's ⟨update, gradient⟩ may be."""
    inverse_every: int = 5
    """Steps from one inversion to the next."""
    seed: int = 0
    """Of the initial parameters, the order of examples and the targets drawn."""
    out: Path = Path("runs/kfac_digits")
    """Where the plot goes."""
    result: Path = Path("runs/kfac_digits/figures.json")
    """A JSON file for the figures."""

    def __post_init__(self) -> None:
        """Options that make no sense can't be made."""
        for name in ("batch", "epochs"):
            check_count("kfac_digits", name, getattr(self, name))
        study.check_lists("kfac_digits", self)
        for name in ("adam_rates", "kfac_rates"):
            for rate in getattr(self, name):
                check_positive("kfac_digits", name, rate)


def run(options: KfacDigits) -> dict[str, Any]:
    """Train with each optimizer at each rate, and tell the figures."""
    study.begin("kfac_digits", options)
    train, test = load_digits()
    if options.batch > len(train.labels):
        raise InputError(f"kfac_digits: batch must be at most {len(train.labels)}, the images, got {options.batch}")
    steps = options.epochs * (len(train.labels) // options.batch)
    model = hg.mlp((train.x.shape[1], *options.sizes, 10), hg.tanh())
    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    params = jax.jit(model.init)(init_key, train.x[:1])

    def blocks(params):
        return kfac_factors(hg.value_and_factors(model, LOSS)(params, train.x, train.labels)[1])

    like = jax.eval_shape(blocks, params)
    runs = {}
    for name, rate in [("adam", r) for r in options.adam_rates] + [("kfac", r) for r in options.kfac_rates]:
        falling = optax.cosine_decay_schedule(rate, steps)
        if name == "adam":
            optimizer = optax.adam(falling)
            step = train_step(model, LOSS, optimizer)
        else:
            inverse = scale_by_kfac(
                like,
                damping=options.damping,
                inverse_every=options.inverse_every,
                norm_constraint=options.norm_constraint,
            )
            optimizer = optax.chain(inverse, optax.scale_by_learning_rate(falling))
            step = kfac_step(model, LOSS, optimizer)
        runs[name, rate] = compiled(step, init_state(params, optimizer, fit_key), train, options.batch, fit_key)
    histories = take_turns(runs, options.epochs, fit_key)

    @jax.jit
    def evaluate(params):
        wrong = jnp.argmax(model.forward(params, test.x)[0], axis=-1) != test.labels
        return hg.objective(model, LOSS)(params, train.x, train.labels), 1 - jnp.mean(wrong)

    figures = {}
    for (name, rate), history in histories.items():
        values = [evaluate(params) for params in history["params"]]
        losses, accuracies, seconds = (
            [float(f"{value:.4g}") for value in column] for column in (*zip(*values, strict=True), history["seconds"])
        )
        figures.setdefault(name, {})[rate] = {
            "steps": [(i + 1) * steps // options.epochs for i in range(options.epochs)],
            "seconds": seconds,
            "train_loss": losses,
            "test_accuracy": accuracies,
        }
    best = {
        name: min(rates, key=lambda rate: _or_infinite(rates[rate]["train_loss"][-1]))
        for name, rates in figures.items()
    }
    report(options, figures, best)
    return {"best": best, "runs": figures}


def compiled(step: Callable[..., Any], state: Any, train: Any, batch: int, key: Any) -> tuple[Any, Any]:
    """An epoch as one program, and the state it starts from."""
    x, labels = jnp.asarray(train.x), jnp.asarray(train.labels)
    count = len(labels) // batch

    def epoch(state, key):
        order = jax.random.permutation(key, len(labels))[: count * batch].reshape(count, batch)
        return jax.lax.scan(lambda state, chosen: step(state, x[chosen], labels[chosen]), state, order)[0]

    return jax.jit(epoch).lower(state, key).compile(), state


def take_turns(runs: dict[Any, tuple[Any, Any]], epochs: int, key: Any) -> dict[Any, dict[str, Any]]:
    """Epoch by epoch, one run after the other: seconds so far and the parameters after each."""
    histories = {name: {"seconds": [], "params": []} for name in runs}
    states = {name: state for name, (_, state) in runs.items()}
    for epoch_key in jax.random.split(key, epochs):
        for name, (epoch, _) in runs.items():
            start = time.perf_counter()
            states[name] = jax.block_until_ready(epoch(states[name], epoch_key))
            seconds = histories[name]["seconds"]
            seconds.append(time.perf_counter() - start + (seconds[-1] if seconds else 0.0))
            histories[name]["params"].append(states[name].params)
    return histories


def reached(run: dict[str, Any], threshold: float) -> tuple[int, float] | None:
    """Steps and seconds to the first epoch whose loss is below the threshold."""
    for steps, seconds, loss in zip(run["steps"], run["seconds"], run["train_loss"], strict=True):
        if loss < threshold:
            return steps, seconds
    return None


def report(options: KfacDigits, figures: dict[str, Any], best: dict[str, float]) -> None:
    """Plot the figures, print them and write them."""
    headings = "", "rate", *(f"steps (seconds) to {t:g}" for t in THRESHOLDS), "train loss", "test accuracy"
    table = study.table(
        f"digits, {'-'.join(map(str, (64, *options.sizes, 10)))} tanh, batch {options.batch}", *headings
    )
    for name, rates in figures.items():
        for rate, one in rates.items():
            times = [reached(one, threshold) for threshold in THRESHOLDS]
            cells = [f"{pair[0]} ({pair[1]:.2f})" if pair else "never" for pair in times]
            mark = f"{rate:g} *" if rate == best[name] else f"{rate:g}"
            end = f"{one['train_loss'][-1]:.1e}", f"{100 * one['test_accuracy'][-1]:.2f} %"
            table.add_row(name, mark, *cells, *end)
    plot(options.out / "kfac_digits.png", figures, best)
    study.publish(options.result, options, table, best=best, runs=figures)


def plot(path: Path, figures: dict[str, Any], best: dict[str, float]) -> None:
    """Loss over steps beside loss over seconds: an optimizer's best rate in full, its others faint."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for (name, rates), color in zip(figures.items(), ("tab:blue", "tab:orange"), strict=True):
        for rate, one in rates.items():
            is_best = rate == best[name]
            for axes, over in zip(panels, ("steps", "seconds"), strict=True):
                label = f"{name}, rate {rate:g}" if is_best else None
                axes.plot(one[over], one["train_loss"], color=color, alpha=1 if is_best else 0.3, label=label)
    for axes, over in zip(panels, ("steps", "seconds without compiling"), strict=True):
        axes.set(xlabel=over, yscale="log")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="mean training loss")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def _or_infinite(loss: float) -> float:
    """A loss that diverged is the worst."""
    return loss if np.isfinite(loss) else np.inf


if __name__ == "__main__":
    study.main(run, KfacDigits)
