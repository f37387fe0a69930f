"""handgrad demo: the question answered, the gradients proven, digits learned by hand."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

from handgrad import layers
from handgrad.backprop import objective, value_and_grad
from handgrad.checks import InputError, check_count
from handgrad.cli import output
from handgrad.cli.whole import Plan, check_networks, progress_bar, table
from handgrad.training import make_folder
from handgrad.training.digits import Options, load_digits, train_classifier, write_report

DRAWS = 10  # networks of one structure, compiled once


@dataclass(frozen=True)
class Demo:
    """Answer the question, prove the gradients, and train on handwritten digits."""

    out: Path = Path("runs/demo")
    """A folder for metrics and plots."""
    networks: int = 200
    """Number of random networks in the cross-check, ten of each structure."""
    epochs: int = Options.epochs
    """Number of passes over the digits."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """20 networks and 5 passes at most: about ten seconds of processor time."""


QUICK = Demo(networks=20, epochs=5)


def main(options: Demo) -> int:
    """The command's exit status: 0 right, 1 wrong, 3 inconclusive."""
    console, start = Console(highlight=False), time.perf_counter()
    networks, epochs = options.networks, options.epochs
    for name, value in (("networks", networks), ("epochs", epochs)):
        check_count("demo", name, value)
    if networks % DRAWS:
        raise InputError(f"demo: networks must be a multiple of {DRAWS}, got {networks}")
    if options.quick:
        networks, epochs = min(networks, QUICK.networks), min(epochs, QUICK.epochs)
    folder = make_folder(options.out)
    device = jax.devices()[0]
    console.print(f"on {device.platform} ({device.device_kind}), jax {jax.__version__}")

    console.print("\n[bold]1. The question:[/bold] one weight, by hand and by jax.grad\n")
    console.print("a = 5.7, target y = 50.1, learning rate r = 0.007, w starts at −23.1\n")
    console.print(question_table())

    console.print(f"\n[bold]2. Any network:[/bold] {networks} random ones by hand, against jax.grad in float64\n")
    right = prove(networks, console)

    console.print("\n[bold]3. Digits:[/bold] a network learns to read, trained by hand-written backpropagation\n")
    train, test = load_digits()
    trained = train_classifier(Options(epochs=epochs), train, test, progress=True)
    paths = write_report(folder, trained, test, "digits by hand")
    console.print(f"test accuracy [green]{100 * trained.test_accuracy:.2f} %[/green] of {len(test.labels)} digits")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)
    console.print(f"\ndone in {time.perf_counter() - start:.0f} s. {following()}", soft_wrap=not console.is_terminal)
    return right


def following() -> str:
    """What to run next."""
    command = output.program()
    return (
        f"Next: `{command} explain --question` works the question through in matrices; "
        f"`{command} check yours:function` checks a function of your file yours.py."
    )


def prove(networks: int, console: Console) -> int:
    """Check random networks in float64, print the table, and return the exit status; `handgrad check` checks more."""
    with progress_bar(console) as bar:
        plan = Plan(network_dtypes=("float64",), networks=networks, draws=DRAWS)
        checked = check_networks(plan, bar)
    console.print(table(checked, ("dtype", "verdict", "error", "tolerance")))
    console.print("error: the largest difference from jax.grad, as a share of the largest entry")
    reports = [one.report for one in checked]
    for report in reports:
        if not report.ok:
            output.show(console, report)
    return output.status(reports)


def question_table() -> Table:
    """The question's 20 steps, its single weight as a 1 × 1 matrix: by hand and by jax.grad."""
    model, loss = layers.linear(1, bias=False), layers.squared_error()
    with jax.enable_x64(True):
        a, y, rate = jnp.array([[5.7]]), jnp.array([[50.1]]), 0.007
        params = layers.LinearParams(jnp.array([[-23.1]]))
        by_hand, by_autodiff = jax.jit(value_and_grad(model, loss)), jax.jit(jax.grad(objective(model, loss)))
        table = Table(title="the question: C = (a w − y)², 20 steps of w − r ∂C/∂w", title_justify="left")
        for heading in ("step", "C before", "∂C/∂w by hand", "by jax.grad", "w after", "a w after"):
            table.add_column(heading, justify="right")
        for step in range(1, 21):
            value, grads = by_hand(params, a, y)
            autodiff = by_autodiff(params, a, y)
            params = jax.tree.map(lambda w, g: w - rate * g, params, grads)
            w = params.W.item()
            before = f"{value:.5g}", f"{grads.W.item():.8g}", f"{autodiff.W.item():.8g}"
            numbers = (*before, f"{w:#.5g}", f"{5.7 * w:#.5g}")
            table.add_row(str(step), *numbers)
    return table
