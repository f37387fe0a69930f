"""How much memory does attention take as the sequence grows, plain and in tiles?

XLA's temporary memory of a forward and a backward pass in one jit. Nothing is run, only compiled.

    python experiments/attention_memory.py --out runs/attention_memory.json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import study

from handgrad import rules
from handgrad.rules import Rule


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


def temporary_bytes(rule: Rule[..., Any], shape: tuple[int, ...]) -> int:
    """XLA's temporary memory of both passes in float32."""

    def both(Q, K, V, dY):
        Y, residuals = rule.forward(Q, K, V)
        return Y, rule.backward(residuals, dY)

    return study.temp_bytes(jax.jit(both).lower(*[jax.ShapeDtypeStruct(shape, jnp.float32)] * 4).compile())


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return its rows."""
    study.begin("attention_memory", options, "batch", "heads", "features", "tile", "tokens")
    plain = rules.attention.with_options(causal=True)
    tiled = rules.tiled_attention.with_options(causal=True, tile=options.tile)
    table = study.table("temporary memory, forward and backward", "tokens", "plain", "tiled", "plain / tiled")
    rows = []
    for tokens in options.tokens:
        shape = (options.batch, tokens, options.heads, options.features)
        row = {"tokens": tokens, "plain": temporary_bytes(plain, shape), "tiled": temporary_bytes(tiled, shape)}
        sizes = (f"{row[form] / 2**20:.1f} MiB" for form in ("plain", "tiled"))
        table.add_row(f"{tokens:,}", *sizes, f"{row['plain'] / row['tiled']:.1f}")
        rows.append(row)
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
