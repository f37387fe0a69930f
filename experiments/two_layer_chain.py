"""Is the question's formula for two weights right? a(L−1) = a(L−2) W(L−1), a(L) = a(L−1) W(L), C = (a(L) − y)².

Both weights are learned, as 1 × 1 matrices in an ordinary chain. Beside each step stands the question's own simplified
gradient for the first weight, a(L−2) W(L) 2 (a(L−1) W(L) − y): it is right, and equals the hand-written and the
jax.grad one.

    python experiments/two_layer_chain.py --out runs/two_layer_chain
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import study
from matplotlib.figure import Figure
from rich.console import Console

import handgrad as hg
from handgrad.checks import check_positive

MODEL = hg.chain(first=hg.linear(1, bias=False), second=hg.linear(1, bias=False))
LOSS = hg.squared_error()


@dataclass(frozen=True)
class Options:
    """Learn two weights in a row by hand-written backpropagation."""

    first: float = 0.8
    """W(L−1) to begin with."""
    second: float = 1.3
    """W(L) to begin with."""
    a: float = 5.7
    """The input a(L−2)."""
    y: float = 50.1
    """The target of a(L)."""
    rate: float = 2e-4
    """The learning rate, above zero."""
    steps: int = 40
    """How often both weights are updated."""
    out: Path = Path("runs/two_layer_chain")
    """Where the plot goes."""


@partial(jax.jit, static_argnames="steps")
def descend(first, second, a, y, rate, steps):
    """Weights and gradients before each step, and after the last one: a dict of arrays (steps + 1,)."""
    x, target = a.reshape(1, 1), y.reshape(1, 1)

    def step(params, _):
        by_hand = hg.grad(MODEL, LOSS)(params, x, target)
        by_autodiff = jax.grad(hg.objective(MODEL, LOSS))(params, x, target)
        W1, W2 = params["first"].W, params["second"].W
        seen = {
            "first": W1,
            "second": W2,
            "output": x @ W1 @ W2,
            "question": x * W2 * 2 * (x * W1 * W2 - target),
            "first by hand": by_hand["first"].W,
            "first by autodiff": by_autodiff["first"].W,
            "second by hand": by_hand["second"].W,
            "second by autodiff": by_autodiff["second"].W,
        }
        params = jax.tree.map(lambda W, dW: W - rate * dW, params, by_hand)
        return params, jax.tree.map(jnp.squeeze, seen)

    params = {"first": hg.LinearParams(first.reshape(1, 1)), "second": hg.LinearParams(second.reshape(1, 1))}
    return jax.lax.scan(step, params, length=steps + 1)[1]


def run(options: Options) -> dict[str, np.ndarray]:
    """Print the table, write the plot, return what was seen before each step and after the last."""
    check_positive("two_layer_chain", "rate", options.rate)
    study.begin("two_layer_chain", options, "steps")
    numbers = (jnp.asarray(v, jnp.float64) for v in (options.first, options.second, options.a, options.y, options.rate))
    seen = jax.tree.map(np.asarray, descend(*numbers, options.steps))

    headings = "k", "W(L−1)", "W(L)", "a(L)", "question's", "by hand", "jax.grad"
    table = study.table("∂C/∂W(L−1): the question's formula, by hand, by jax.grad", *headings)
    shown = range(0, options.steps, max(1, options.steps // 20))
    for k in (*shown, options.steps):
        weights = (f"{seen[name][k]:#.5g}" for name in ("first", "second", "output"))
        names = ("question", "first by hand", "first by autodiff")
        table.add_row(str(k), *weights, *(f"{seen[name][k]:.8g}" for name in names))
    console = Console()
    console.print(table)
    W1, W2, output = (seen[name][-1] for name in ("first", "second", "output"))
    console.print(f"after {options.steps} steps: {options.a} · {W1:.5g} · {W2:.5g} = {output:.5g}", highlight=False)
    plot(options.out / "weights.png", options, seen)
    console.print(f"plot: {options.out / 'weights.png'}", soft_wrap=True)
    return seen


def plot(path: Path, options: Options, seen: dict[str, np.ndarray]) -> None:
    """Both weights and the output over the steps."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    weights, output = figure.subplots(1, 2)
    weights.plot(seen["first"], "o-", markersize=3, label="W(L−1)")
    weights.plot(seen["second"], "o-", markersize=3, label="W(L)")
    weights.set(xlabel="step k", ylabel="weight", title="both weights learn")
    output.plot(seen["output"], "o-", markersize=3, label="a(L) = a(L−2) W(L−1) W(L)")
    output.axhline(options.y, color="tab:red", linestyle="--", label=f"target {options.y}")
    output.set(xlabel="step k", ylabel="output", title=f"learning rate {options.rate}")
    for axes in (weights, output):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with jax.enable_x64(True):
        study.main(run, Options)
