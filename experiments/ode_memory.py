"""What do the two gradients of a differential equation take in memory, and how far is the adjoint's from the steps'?

A flow of one width from time 0 to 1 in N steps of Runge and Kutta's method of order 4, its value and gradient in
float32, three ways: by `ode`'s checkpoints, by its adjoint, and by `jax.grad` of the same steps. For each N: XLA's
temporary memory, and the gradient's error against `jax.grad` of the steps in float64, as a share of each gradient's
norm, the worst of all parameters.

    python experiments/ode_memory.py --out runs/ode_memory.json
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
WAYS = ("checkpoints", "adjoint", "jax.grad")


@dataclass(frozen=True)
class Options:
    """A flow in few and in many steps: memory and errors."""

    steps: tuple[int, ...] = (4, 16, 64, 256)
    """How many steps."""
    width: int = 64
    """Features, and hidden units."""
    batch: int = 256
    """Examples."""
    out: Path = Path("runs/ode_memory.json")
    """Where the figures go."""


def gradient(way: str, width: int, steps: int) -> Any:
    """(params, x, target) -> value, grads."""
    f = hg.chain(hg.linear(width), hg.tanh(), hg.linear(width))
    if way == "jax.grad":
        return jax.value_and_grad(hg.objective(hg.ode(f, steps=steps), LOSS))
    return hg.value_and_grad(hg.ode(f, steps=steps, gradient="adjoint" if way == "adjoint" else "checkpoints"), LOSS)


def error(found: Any, truth: Any) -> float:
    """The worst parameter's error, as a share of its gradient's norm."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
    return max(float(np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)) for a, b in pairs)


def measure(options: Options, steps: int) -> dict[str, Any]:
    """One row: bytes and errors of each way."""
    f = hg.chain(hg.linear(options.width), hg.tanh(), hg.linear(options.width))
    x, target = jax.random.normal(jax.random.key(0), (2, options.batch, options.width), jnp.float32)
    params = f.init(jax.random.key(1), x)
    in_float64 = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, target))
    _, truth = jax.jit(gradient("jax.grad", options.width, steps))(*in_float64)
    row: dict[str, Any] = {"steps": steps}
    for way in WAYS:
        compiled = jax.jit(gradient(way, options.width, steps)).lower(params, x, target).compile()
        _, grads = compiled(params, x, target)
        row[way] = {"temp_bytes": study.temp_bytes(compiled), "error": error(grads, truth)}
    return row


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return them."""
    study.begin("ode_memory", options, "steps", "width", "batch")
    rows = [measure(options, steps) for steps in options.steps]
    title = f"width {options.width}, batch {options.batch}, float32, jax {jax.__version__}"
    table = study.table(title, "steps", *(f"{way}: {what}" for what in ("bytes", "error") for way in WAYS))
    for row in rows:
        memory = (f"{row[way]['temp_bytes']:,}" for way in WAYS)
        table.add_row(str(row["steps"]), *memory, *(f"{row[way]['error']:.1e}" for way in WAYS))
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    with jax.enable_x64(True):
        study.main(run, Options)
