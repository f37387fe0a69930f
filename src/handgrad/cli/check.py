"""handgrad check: hand-written gradients against jax.grad on random networks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from handgrad.backprop import objective, value_and_grad
from handgrad.crosscheck import Comparison, Job, compare_all
from handgrad.models import random_network
from handgrad.shapes import InputError, check_count

# 1e-12 is 4,504 times float64's eps; float32 gets as many of its own.
BOUNDS = {"float64": 1e-12, "float32": 1e-12 / float(np.finfo(np.float64).eps) * float(np.finfo(np.float32).eps)}


@dataclass(frozen=True)
class Check:
    """Cross-check hand-written gradients against jax.grad on random networks."""

    count: int = 200
    """How many networks; where both dtypes are checked, half of them for each."""
    draws: int = 1
    """How many of them share a structure, with parameters and data of their own: compiled once, the quicker the
    more."""
    seed: int = 0
    """Seed of the first network; the others follow."""
    dtype: Literal["both", "float64", "float32"] = "both"
    """The dtype of parameters and data."""
    max_depth: int = 8
    """Linear layers in a network, at most."""


def run(options: Check, console: Console) -> bool:
    """Check, print the table, and say whether every network agrees."""
    dtypes = ["float64", "float32"] if options.dtype == "both" else [options.dtype]
    with jax.enable_x64(True):
        comparisons = compare_all(_jobs(options, dtypes))
        structures = options.count // options.draws
        rows = list(track(comparisons, "random networks", structures, console=console, transient=True))
    console.print(summary(rows, dtypes, options))
    failures = [row for row in rows if not row.error <= BOUNDS[row.dtype]]
    for row in failures:
        console.print(f"[red]differs[/red] by {row.error:.1e} at {row.leaf} ({row.dtype}): {row.name}")
    return not failures


def summary(rows: list[Comparison], dtypes: list[str], options: Check) -> Table:
    """One line for each dtype: how many networks, and where hand and autodiff are furthest apart."""
    title = f"by hand against jax.grad: {len(rows) * options.draws} random networks"
    if options.draws > 1:
        title += f", {len(rows)} structures with {options.draws} draws of parameters and data each"
    table = Table(title=title, title_justify="left")
    for heading in ("dtype", "networks", "worst error", "bound", "at"):
        table.add_column(heading, justify="left" if heading in ("dtype", "at") else "right", overflow="fold")
    for dtype in dtypes:
        mine = [row for row in rows if row.dtype == dtype]
        if not mine:
            continue
        worst = max(mine, key=lambda row: np.inf if np.isnan(row.error) else row.error)
        good = worst.error <= BOUNDS[dtype]
        table.add_row(
            dtype,
            str(len(mine) * options.draws),
            f"[{'green' if good else 'red'}]{worst.error:.1e}",
            f"{BOUNDS[dtype]:.1e}",
            f"{worst.leaf} of {worst.name.partition(':')[0]}",
        )
    return table


def _jobs(options: Check, dtypes: list[str]) -> Iterator[Job]:
    for i in range(options.count // options.draws):
        seed, dtype = options.seed + i, np.dtype(dtypes[i % len(dtypes)])
        network, *others = (random_network(seed, dtype, options.max_depth, draw) for draw in range(options.draws))
        by_hand = value_and_grad(network.model, network.loss, argnums=(0, 1))
        by_autodiff = jax.value_and_grad(objective(network.model, network.loss), argnums=(0, 1))
        draws = [network.arguments, *(other.arguments for other in others)]
        yield Job(f"seed {seed}: {network.name}", _named(by_hand), _named(by_autodiff), draws)


def _named(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """(value, (dparams, dx)) under names that a report can show."""

    def named(*arguments):
        value, (dparams, dx) = function(*arguments)
        return {"value": value, "dparams": dparams, "dx": dx}

    return named


def main(options: Check) -> int:
    """The command: 0 where every network agrees, 1 where one doesn't."""
    console = Console()
    for name in ("count", "draws", "max_depth"):
        check_count("handgrad check", name, getattr(options, name))
    if options.count % options.draws:
        raise InputError(f"handgrad check: draws must divide count, got {options.draws} and {options.count}")
    if options.seed < 0:
        raise InputError(f"handgrad check: seed must be at least 0, got {options.seed}")
    return 0 if run(options, console) else 1
