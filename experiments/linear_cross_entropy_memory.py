"""What does it save never to hold the logits? linear_cross_entropy against linear and softmax_cross_entropy.

Value and gradients (parameters and input) of one projection to many classes, for more and more tokens: temporary memory
as XLA's memory_analysis tells it, and times, both ways run in turn in one process. Writes the figures as JSON.

    python experiments/linear_cross_entropy_memory.py --out docs/results/linear_cross_entropy.json
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import study

import handgrad as hg


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
    study.begin("linear_cross_entropy_memory", options, "classes", "n_in", "chunk", "repeats", "tokens")
    rows = [measure(tokens, options) for tokens in options.tokens]
    headings = "tokens", "logits whole", "in chunks", "memory ratio", "time ratio", "largest difference"
    table = study.table("linear_cross_entropy over linear and softmax_cross_entropy", *headings)
    for row in rows:
        sizes = (f"{row[f'{way}_temp_bytes'] / 1e6:.1f} MB" for way in ("whole", "chunked"))
        ratios = f"{row['temp_ratio']:.3f}", f"{row['time_ratio']:.2f}", f"{row['largest_error']:.1e}"
        table.add_row(f"{row['tokens']:,}", *sizes, *ratios)
    study.publish(options.out, options, table, rows=rows)
    return rows


def measure(tokens: int, options: Options) -> dict[str, Any]:
    """Both ways for one number of tokens: temp memory, the median time, the median ratio of pairs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, tokens, options.n_in), np.float32)
    labels = rng.integers(0, options.classes, (1, tokens))
    whole, chunked = hg.linear(options.classes), hg.layers.projection(options.classes)
    arguments = jax.device_put((whole.init(jax.random.key(0), x), x, labels))
    ways = {
        "whole": hg.value_and_grad(whole, hg.softmax_cross_entropy(), argnums=(0, 1)),
        "chunked": hg.value_and_grad(chunked, hg.linear_cross_entropy(chunk=options.chunk), argnums=(0, 1)),
    }
    compiled = {way: jax.jit(function).lower(*arguments).compile() for way, function in ways.items()}
    temp = {way: study.temp_bytes(program) for way, program in compiled.items()}
    times = study.in_turn({way: partial(program, *arguments) for way, program in compiled.items()}, options.repeats)
    results = [jax.tree.leaves(program(*arguments)) for program in compiled.values()]
    return {
        "tokens": tokens,
        **{f"{way}_temp_bytes": temp[way] for way in ways},
        "temp_ratio": temp["chunked"] / temp["whole"],
        **{f"{way}_ms": 1e3 * median(times[way]) for way in ways},
        "time_ratio": study.ratio(times["chunked"], times["whole"]),
        "largest_error": max(study.relative_error(a, b) for a, b in zip(*results, strict=True)),
    }


if __name__ == "__main__":
    study.main(run, Options)
