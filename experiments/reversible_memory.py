"""Does the memory of reversible blocks depend on their number, and what does finding their inputs again cost in digits?

n blocks of one width, their value and gradient in float32, three ways: `reversible_sequence`, which keeps the last
output alone; `repeat` of the same block with what its layers keep; and `jax.grad` of the latter. For each depth: XLA's
temporary memory, and the gradient's error against the plain form in float64, as a share of each gradient's norm, the
worst of all parameters.

    python experiments/reversible_memory.py --out runs/reversible_memory.json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import study

import handgrad as hg

LOSS = hg.l2_loss()
WAYS = ("sequence", "repeat", "jax.grad")


@dataclass(frozen=True)
class Options:
    """Reversible blocks of several depths: memory and rounding."""

    depths: tuple[int, ...] = (4, 16, 64)
    """How many blocks."""
    width: int = 64
    """Features; each layer sees half of them."""
    batch: int = 256
    """Examples."""
    out: Path = Path("runs/reversible_memory.json")
    """Where the figures go."""


def gradient(way: str, width: int, depth: int) -> Any:
    """(params, x, target) -> value, grads."""
    f, g = (hg.chain(hg.linear(width // 2), hg.tanh(), hg.linear(width // 2)) for _ in range(2))
    if way == "sequence":
        return hg.value_and_grad(hg.layers.reversible_sequence(f, g, depth), LOSS)
    plain = hg.repeat(hg.reversible(f, g, residuals="save"), depth)
    return hg.value_and_grad(plain, LOSS) if way == "repeat" else jax.value_and_grad(hg.objective(plain, LOSS))


def error(found: Any, truth: Any) -> float:
    """The worst parameter's error, as a share of its gradient's norm."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
    return max(float(np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)) for a, b in pairs)


def measure(options: Options, depth: int) -> dict[str, Any]:
    """One row: bytes and errors of each way."""
    f, g = (hg.chain(hg.linear(options.width // 2), hg.tanh(), hg.linear(options.width // 2)) for _ in range(2))
    x, target = jax.random.normal(jax.random.key(0), (2, options.batch, options.width), jnp.float32)
    params = hg.layers.reversible_sequence(f, g, depth).init(jax.random.key(1), x)
    row: dict[str, Any] = {"depth": depth, "parameters": sum(p.nbytes for p in jax.tree.leaves(params))}
    in_float64 = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, target))
    _, truth = jax.jit(gradient("jax.grad", options.width, depth))(*in_float64)
    for way in WAYS:
        compiled = jax.jit(gradient(way, options.width, depth)).lower(params, x, target).compile()
        _, grads = compiled(params, x, target)
        row[way] = {"temp_bytes": study.temp_bytes(compiled), "error": error(grads, truth)}
    return row


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return them."""
    study.begin("reversible_memory", options, "depths", "width", "batch")
    if options.width % 2:
        raise hg.InputError(f"reversible_memory: width must be even, got {options.width}")
    rows = [measure(options, depth) for depth in options.depths]
    title = f"width {options.width}, batch {options.batch}, float32, jax {jax.__version__}"
    table = study.table(title, "blocks", *(f"{way}: {what}" for what in ("bytes", "error") for way in WAYS))
    for row in rows:
        memory = (f"{row[way]['temp_bytes']:,}" for way in WAYS)
        table.add_row(str(row["depth"]), *memory, *(f"{row[way]['error']:.1e}" for way in WAYS))
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    with jax.enable_x64(True):
        study.main(run, Options)
