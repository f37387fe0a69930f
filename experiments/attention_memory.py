"""How much memory attention takes as the sequence grows: the plain form beside the tiled one.

Temporary memory of forward and backward pass in one jit, by XLA's memory_analysis(). Nothing is run, only compiled.

    python experiments/attention_memory.py --out runs/attention_memory.json
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

from handgrad import InputError, rules
from handgrad.checks import check_count
from handgrad.training import machine, make_folder


@dataclass(frozen=True)
class Options:
    """Compare the temporary memory of plain and tiled attention."""

    tokens: tuple[int, ...] = (256, 512, 1024, 2048)
    """Sequence lengths."""
    batch: int = 1
    """Examples."""
    heads: int = 8
    """Heads."""
    features: int = 64
    """Features of each head."""
    tile: int = 128
    """Keys in a tile."""
    out: Path = Path("runs/attention_memory.json")
    """Where the figures go."""


def temporary_bytes(forward: Any, backward: Any, shape: tuple[int, ...]) -> int:
    """What both passes need beside their arguments and results, in float32."""

    def both(Q, K, V, dY):
        Y, residuals = forward(Q, K, V)
        return Y, backward(residuals, dY)

    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 4
    analysis: Any = jax.jit(both).lower(*arrays).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return its rows."""
    sizes = {"batch": options.batch, "heads": options.heads, "features": options.features, "tile": options.tile}
    for name, value in [*sizes.items(), *(("tokens", tokens) for tokens in options.tokens)]:
        check_count("attention_memory", name, value)
    folder = make_folder(options.out.parent)
    plain = partial(rules.attention_forward, causal=True), partial(rules.attention_backward, causal=True)
    in_tiles = {"causal": True, "tile": options.tile}
    tiled = partial(rules.tiled_attention_forward, **in_tiles), partial(rules.tiled_attention_backward, **in_tiles)

    table = Table(title="temporary memory, forward and backward", title_justify="left")
    for heading in ("tokens", "plain", "tiled", "plain / tiled"):
        table.add_column(heading, justify="right")
    rows = []
    for tokens in options.tokens:
        shape = (options.batch, tokens, options.heads, options.features)
        row = {"tokens": tokens, "plain": temporary_bytes(*plain, shape), "tiled": temporary_bytes(*tiled, shape)}
        table.add_row(f"{tokens:,}", *(f"{row[form] / 2**20:.1f} MiB" for form in ("plain", "tiled")), ratio(row))
        rows.append(row)
    path = folder / options.out.name
    path.write_text(
        json.dumps({**machine(), **sizes, "dtype": "float32", "causal": True, "rows": rows}, indent=1) + "\n"
    )
    console = Console()
    console.print(table)
    console.print(f"figures: {path}", soft_wrap=True)
    return rows


def ratio(row: dict[str, Any]) -> str:
    """How many times the tiled form's memory the plain form takes."""
    return f"{row['plain'] / row['tiled']:.1f}"


if __name__ == "__main__":
    try:
        run(tyro.cli(Options))
    except InputError as error:
        sys.exit(str(error))
