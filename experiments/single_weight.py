"""Where does the question's single weight go? C = (a w − y)², w ← w − r ∂C/∂w, twenty times.

No special code: w is a 1 × 1 matrix, a and y are batches of one, and the gradient is the `linear` rule's. Writes two
plots, w over the steps and the error over learning rates, where the law says that each step multiplies it by 1 − 2 r
a².

    python experiments/single_weight.py --out runs/single_weight
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import study
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console

import handgrad as hg
from handgrad.checks import check_positive

# w after each step, as the question prints it.
PRINTED = [
    *("-8.5948", "-0.68736", "3.6233", "5.9732", "7.2542", "7.9525", "8.3332", "8.5408", "8.6539", "8.7156"),
    *("8.7492", "8.7675", "8.7775", "8.7829", "8.7859", "8.7875", "8.7884", "8.7889", "8.7892", "8.7893"),
]

MODEL, LOSS = hg.chain(hg.linear(1, bias=False)), hg.squared_error()


@dataclass(frozen=True)
class Options:
    """Learn one weight by hand-written backpropagation."""

    w: float = -23.1
    """The weight to begin with."""
    a: float = 5.7
    """What it is multiplied with."""
    y: float = 50.1
    """The target of a w."""
    rate: float = 0.007
    """The learning rate r, above zero."""
    steps: int = 20
    """How often w is updated."""
    out: Path = Path("runs/single_weight")
    """Where the plots go."""


@partial(jax.jit, static_argnames="steps")
def descend(w, a, y, rate, steps):
    """(w, gradient by hand, gradient by jax.grad), each (steps,): w after the update, gradients before it."""
    x, target = a.reshape(1, 1), y.reshape(1, 1)

    def step(params, _):
        by_hand = hg.grad(MODEL, LOSS)(params, x, target)
        by_autodiff = jax.grad(hg.objective(MODEL, LOSS))(params, x, target)
        params = jax.tree.map(lambda w, dw: w - rate * dw, params, by_hand)
        return params, tuple(tree[0].W.squeeze() for tree in (params, by_hand, by_autodiff))

    return jax.lax.scan(step, (hg.LinearParams(w.reshape(1, 1)),), length=steps)[1]


def run(options: Options) -> np.ndarray:
    """Print the table, write the plots, return w after each step."""
    check_positive("single_weight", "rate", options.rate)
    study.begin("single_weight", options, "steps")
    w0, a, y, rate = (jnp.asarray(v, jnp.float64) for v in (options.w, options.a, options.y, options.rate))
    w, by_hand, by_autodiff = map(np.asarray, descend(w0, a, y, rate, options.steps))

    table = study.table("", "k", "w", "in the question", "∂C/∂w by hand", "jax.grad")
    printed = PRINTED if options == Options(out=options.out) else []
    for k in range(options.steps):
        question = printed[k] if k < len(printed) else ""
        table.add_row(str(k + 1), f"{w[k]:#.5g}", question, f"{by_hand[k]:.10g}", f"{by_autodiff[k]:.10g}")
    console = Console()
    console.print(table)
    console.print(f"a w = {options.a * w[-1]:.5g}, target {options.y:.5g}", highlight=False)
    edge = 1 / options.a**2 if options.a else float("inf")
    if options.rate > edge:
        console.print(f"it diverges: r = {options.rate:g} is above 1 / a² = {edge:.4g}", highlight=False)
    plot_weight(options.out / "weight.png", options, w)
    plot_law(options.out / "convergence_law.png", options)
    console.print(f"plots: {options.out / 'weight.png'}, {options.out / 'convergence_law.png'}", soft_wrap=True)
    return w


def plot_weight(path: Path, options: Options, w: np.ndarray) -> None:
    """w over the steps, and where it is going."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(w) + 1), [options.w, *w], "o-", label="w by hand-written gradients")
    goal = options.y / options.a
    axes.axhline(goal, color="tab:red", linestyle="--", label=f"w* = y / a = {goal:.4f}")
    axes.set(xlabel="step k", ylabel="w", title=f"one weight, learning rate {options.rate}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_law(path: Path, options: Options) -> None:
    """The error after the last step for many learning rates, all in one jitted call, over what the law predicts."""
    edge = 1 / options.a**2
    rates = np.linspace(0.01, 1.25, 249) * edge
    numbers = (jnp.float64(options.w), jnp.float64(options.a), jnp.float64(options.y))
    w, _, _ = jax.jit(jax.vmap(lambda rate: descend(*numbers, rate, options.steps)))(jnp.asarray(rates))
    goal = options.y / options.a
    law = np.abs(1 - 2 * rates * options.a**2) ** options.steps * abs(options.w - goal)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(rates, np.maximum(np.abs(w[:, -1] - goal), 1e-16), ".", label="by hand-written gradients")
    axes.semilogy(rates, np.maximum(law, 1e-16), "-", label="|1 − 2 r a²|ᵏ |w₀ − w*|")
    axes.axvline(edge, color="tab:red", linestyle="--", label=f"1 / a² = {edge:.4f}: beyond it w diverges")
    axes.axvline(options.rate, color="tab:gray", linestyle=":", label=f"the question's r = {options.rate}")
    axes.set(xlabel="learning rate r", ylabel=f"|w − w*| after {options.steps} steps", title="the law of convergence")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with jax.enable_x64(True):
        study.main(run, Options)
