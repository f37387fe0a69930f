"""What the studies share: options checked before the work, times taken in turn, a table and its figures as JSON."""

import dataclasses
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from handgrad.checks import InputError, check_count
from handgrad.training import GradientError, Interrupted, NotFiniteError, machine, make_folder

LAYERS = ("hidden", "sizes")  # options that may be empty: without hidden layers a network is linear


def begin(name: str, options: Any, *counts: str) -> None:
    """Check these options, counts or tuples of them, that no list of options is empty, and that `options.out` can be
    written, before the work.

    Raises:
      InputError: one of them is not a positive integer; a list that the study goes through has none; the folder can't
        be written.
    """
    check_lists(name, options)
    for field in counts:
        value = getattr(options, field)
        for count in value if isinstance(value, tuple) else (value,):
            check_count(name, field, count)
    make_folder(options.out.parent if options.out.suffix else options.out)


def check_lists(name: str, options: Any) -> None:
    """No list of options is empty."""
    for field in dataclasses.fields(options):
        if getattr(options, field.name) == () and field.name not in LAYERS:
            raise InputError(f"{name}: {field.name} must have one value at least, got none")


def settings(options: Any) -> dict[str, Any]:
    """The options as JSON has them, paths left out."""
    return {name: value for name, value in dataclasses.asdict(options).items() if not isinstance(value, Path | None)}


def table(title: str, *headings: str) -> Table:
    """An empty table of right-justified columns."""
    empty = Table(title=title, title_justify="left")
    for heading in headings:
        empty.add_column(heading, justify="right")
    return empty


def publish(path: Path, options: Any, *tables: Table, **figures: Any) -> None:
    """Print the tables; write the figures, with the machine and the options, as JSON."""
    console = Console()
    for one in tables:
        console.print(one)
    path.write_text(json.dumps({**machine(), "options": settings(options), **figures}, indent=1) + "\n")
    console.print(f"figures: {path}", soft_wrap=True)


def in_turn(
    programs: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of each program, run in turn and every second time in reverse order; `warm_up` turns don't count."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warm_up + repeats):
        for name in reversed(tuple(programs)) if turn % 2 else programs:
            start = clock()
            jax.block_until_ready(programs[name]())
            seconds[name].append(clock() - start)
    return {name: times[warm_up:] for name, times in seconds.items()}


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of pairs."""
    return statistics.median(one / two for one, two in zip(times, reference, strict=True))


def relative_error(value: ArrayLike, reference: ArrayLike) -> float:
    """max |value − reference| / max |reference|; 0 where both are all zeros, NaN where either has a NaN."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    difference = np.max(np.abs(value - reference), initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(difference / np.max(np.abs(reference), initial=0.0)) if difference != 0 else 0.0


def temp_bytes(compiled: Any) -> int:
    """XLA's temporary memory of a compiled program: all that it needs beside arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def main(run: Callable[[Any], Any], options: Any) -> None:
    """Run a study with options from the command line. Whatever ends it early is one sentence and an exit status: 1 for
    an error, 128 + the signal for an interruption, inside of `fit` or not."""
    try:
        run(tyro.cli(options))
    except (InputError, NotFiniteError, GradientError) as error:
        sys.exit(str(error))
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        sys.exit(interruption.status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
