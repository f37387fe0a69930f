"""What it saves never to hold the logits: linear_cross_entropy against linear and softmax_cross_entropy.

Value and gradients (parameters and input) of one projection to many classes, for more and more tokens: temporary memory
as XLA's memory_analysis tells it, and times, both ways run in turn in one process. Writes the figures as JSON.

    python experiments/linear_cross_entropy_memory.py --out docs/results/linear_cross_entropy.json
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import handgrad as hg
from handgrad import layers
from handgrad.checks import check_count
from handgrad.cli.bench import relative_error
from handgrad.training import machine, make_folder


@dataclass(frozen=True)
class Options:
    """Measure temporary memory and time with and without logits in memory."""

    tokens: tuple[int, ...] = (512, 1024, 2048, 4096)
    """How many tokens, in turn."""
    classes: int = 8192
    """Columns of W."""
    n_in: int = 64
    """Rows of W."""
    chunk: int = 256
    """Tokens whose logits linear_cross_entropy holds."""
    repeats: int = 10
    """Pairs of runs."""
    out: Path = Path("runs/linear_cross_entropy.json")
    """Where the figures go."""


def run(options: Options) -> list[dict[str, Any]]:
    """Measure, print the table, write the figures, return them."""
    for name in ("classes", "n_in", "chunk", "repeats"):
        check_count("linear_cross_entropy_memory", name, getattr(options, name))
    make_folder(options.out.parent)
    console = Console()
    rows = []
    for tokens in options.tokens:
        check_count("linear_cross_entropy_memory", "tokens", tokens)
        with console.status(f"{tokens} tokens"):
            rows.append(measure(tokens, options))
    console.print(table(rows))
    sizes = {"classes": options.classes, "n_in": options.n_in, "chunk": options.chunk, "repeats": options.repeats}
    options.out.write_text(json.dumps({**machine(), **sizes, "rows": rows}, indent=1) + "\n")
    console.print(f"written: {options.out}", soft_wrap=True)
    return rows


def measure(tokens: int, options: Options) -> dict[str, Any]:
    """Both ways for one number of tokens: temp memory, the median time, the median ratio of pairs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, tokens, options.n_in), np.float32)
    labels = rng.integers(0, options.classes, (1, tokens))
    whole, chunked = layers.linear(options.classes), layers.projection(options.classes)
    arguments = jax.device_put((whole.init(jax.random.key(0), x), x, labels))
    ways = {
        "whole": hg.value_and_grad(whole, layers.softmax_cross_entropy(), argnums=(0, 1)),
        "chunked": hg.value_and_grad(chunked, layers.linear_cross_entropy(chunk=options.chunk), argnums=(0, 1)),
    }
    compiled: dict[str, Any] = {way: jax.jit(function).lower(*arguments).compile() for way, function in ways.items()}
    temp = {way: program.memory_analysis().temp_size_in_bytes for way, program in compiled.items()}
    times = {way: [] for way in ways}
    for _ in range(options.repeats + 1):
        for way, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times[way].append(time.perf_counter() - start)
    one, other = (np.array(times[way][1:]) for way in ways)  # the first pair warms up
    results = [jax.tree.leaves(program(*arguments)) for program in compiled.values()]
    return {
        "tokens": tokens,
        **{f"{way}_temp_bytes": temp[way] for way in ways},
        "temp_ratio": temp["chunked"] / temp["whole"],
        **{f"{way}_ms": 1e3 * float(np.median(times[way][1:])) for way in ways},
        "time_ratio": float(np.median(other / one)),
        "largest_error": max(relative_error(a, b) for a, b in zip(*results, strict=True)),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """A line for each number of tokens; ratios are linear_cross_entropy over the other."""
    shown = Table()
    for heading in ("tokens", "logits whole", "in chunks", "memory ratio", "time ratio", "largest difference"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            f"{row['tokens']:,}",
            f"{row['whole_temp_bytes'] / 1e6:.1f} MB",
            f"{row['chunked_temp_bytes'] / 1e6:.1f} MB",
            f"{row['temp_ratio']:.3f}",
            f"{row['time_ratio']:.2f}",
            f"{row['largest_error']:.1e}",
        )
    return shown


if __name__ == "__main__":
    try:
        run(tyro.cli(Options))
    except hg.InputError as error:
        sys.exit(str(error))
