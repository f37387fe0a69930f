"""How much accuracy does differential privacy cost on handwritten digits?

DP-SGD (Abadi et al. 2016) on scikit-learn's digits: each step draws every example with a probability of its own, clips
each one's gradient to C, adds the noise of `optax.add_noise`, and steps. ε is dp_accounting's, by privacy loss
distributions, for examples that are added or removed. A row for each noise multiplier, beside training without privacy.

    pip install -e '.[privacy]'
    python experiments/private_digits.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import study

import handgrad as hg
from handgrad.checks import check_positive
from handgrad.extras import install
from handgrad.training.digits import Split, load_digits


@dataclass(frozen=True)
class Options:
    """DP-SGD on digits."""

    noise_multipliers: tuple[float, ...] = (8.0, 4.0, 2.0, 1.0)
    """σ: the noise's standard deviation, as a multiple of the clipping norm."""
    l2_clip_norm: float = 1.0
    """C."""
    hidden: tuple[int, ...] = (64,)
    """Features of each hidden layer."""
    batch: int = 256
    """Examples that a step draws, on average."""
    steps: int = 200
    """Steps of training."""
    learning_rate: float = 1.0
    """Of plain gradient descent."""
    delta: float = 1e-4
    """δ, below 1 / the number of examples."""
    seed: int = 0
    """Of the initial parameters, the draws and the noise."""
    out: Path = Path("runs/private_digits")
    """Where figures.json and accuracy.png go."""


def spent(options: Options, examples: int) -> Callable[[float], float]:
    """Noise multiplier -> ε after all steps."""
    try:
        import dp_accounting  # pyright: ignore[reportMissingImports]
        from dp_accounting import pld  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise hg.InputError(f"private_digits: needs {error.name}: {install('privacy')}") from None

    def epsilon(noise_multiplier: float) -> float:
        step = dp_accounting.PoissonSampledDpEvent(
            options.batch / examples, dp_accounting.GaussianDpEvent(noise_multiplier)
        )
        return float(pld.PLDAccountant().compose(step, options.steps).get_epsilon(options.delta))

    return epsilon


def train(options: Options, noise_multiplier: float | None, train: Split, test: Split) -> float:
    """The accuracy on the test set after all steps; None trains without clipping and noise."""
    model, loss = hg.mlp((64, *options.hidden, 10), hg.tanh()), hg.softmax_cross_entropy()
    init_key, noise_key, draw_key = jax.random.split(jax.random.key(options.seed), 3)
    x, labels = jnp.asarray(train.x), jnp.asarray(train.labels)
    params = jax.jit(model.init)(init_key, x)
    noise = optax.identity()
    if noise_multiplier is not None:
        deviation = noise_multiplier * options.l2_clip_norm / options.batch
        noise = optax.add_noise(deviation**2, 0.0, key=noise_key)
    optimizer = optax.chain(noise, optax.sgd(options.learning_rate))
    clipped = hg.clipped_grad(model, loss, l2_clip_norm=options.l2_clip_norm, normalize_by=options.batch)
    plain = hg.grad(model, loss)
    # A draw has another size each time; the program has room for one that is all but never exceeded.
    room = min(len(x), options.batch + 6 * int(options.batch**0.5))

    def step(carry, key):
        params, opt_state = carry
        drawn = jax.random.bernoulli(key, options.batch / len(x), (len(x),))
        rows = jnp.argsort(~drawn, stable=True)[:room]
        is_padding = ~drawn[rows]
        if noise_multiplier is None:
            weights = jnp.where(is_padding, 0, 1 / options.batch)
            grads = plain(params, x[rows], labels[rows], weights)
        else:
            grads = clipped(params, x[rows], labels[rows], is_padding_example=is_padding)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(draw_key, options.steps)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimizer.init(params)))
    answers = jnp.argmax(model.forward(params, jnp.asarray(test.x))[0], axis=-1)
    return float(jnp.mean(answers == test.labels))


def run(options: Options) -> list[dict[str, Any]]:
    """Train, print, plot; a row for each noise multiplier, and one without privacy."""
    study.begin("private_digits", options, "batch", "steps", "hidden")
    for sigma in options.noise_multipliers:
        check_positive("private_digits", "noise_multipliers", sigma)
    for name in ("l2_clip_norm", "learning_rate"):
        check_positive("private_digits", name, getattr(options, name))
    splits = load_digits()
    examples = len(splits[0].labels)
    if not 0 < options.delta < 1 / examples:
        raise hg.InputError(
            f"private_digits: delta must be above 0 and below 1 / {examples}, one example's share, got {options.delta}"
        )
    if options.batch > examples:
        raise hg.InputError(f"private_digits: batch must be at most the {examples} examples, got {options.batch}")
    epsilon = spent(options, examples)
    rows: list[dict[str, Any]] = [
        {"noise_multiplier": sigma, "epsilon": epsilon(sigma), "test_accuracy": train(options, sigma, *splits)}
        for sigma in options.noise_multipliers
    ]
    rows.append({"noise_multiplier": None, "epsilon": None, "test_accuracy": train(options, None, *splits)})
    title = f"{options.steps} steps, δ = {options.delta:g}"
    table = study.table(title, "noise multiplier", "ε", "test accuracy")
    for row in rows:
        private = row["epsilon"] is not None
        numbers = (f"{row['noise_multiplier']:g}", f"{row['epsilon']:.2f}") if private else ("none", "∞")
        table.add_row(*numbers, f"{100 * row['test_accuracy']:.1f} %")
    plot(options.out / "accuracy.png", rows, options.delta)
    study.publish(options.out / "figures.json", options, table, rows=rows)
    return rows


def plot(path: Path, rows: list[dict[str, Any]], delta: float) -> None:
    """Accuracy against ε."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    private = sorted((row["epsilon"], 100 * row["test_accuracy"]) for row in rows if row["epsilon"] is not None)
    axes.set_xscale("log")
    axes.plot(*zip(*private, strict=True), "o-", label="clipped and noised")
    axes.axhline(100 * rows[-1]["test_accuracy"], color="tab:gray", linestyle="--", label="without privacy")
    axes.set_xticks([epsilon for epsilon, _ in private], [f"{epsilon:.3g}" for epsilon, _ in private], minor=False)
    axes.minorticks_off()
    axes.set(xlabel=f"ε at δ = {delta:g}", ylabel="test accuracy (%)", title="scikit-learn's digits")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    study.main(run, Options)
