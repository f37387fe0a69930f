"""What does a training step save that never writes all gradients out, and from how many rows on doesn't it?

`repeat` of residual blocks, layer norm, linear and tanh, in float32, clipped by the global norm: `two_phase_step`
beside `jax.grad` with optax, state donated to both. For each optimiser and batch: XLA's temporary memory, time (both in
turn in one process, the median of the ratios), and how far the parameters are apart after 20 steps, in float32 and in
float64.

    python experiments/two_phase_memory.py --out runs/two_phase_memory.json
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

import handgrad as hg
from handgrad.shapes import check_count
from handgrad.training import TrainState, init_state, machine, two_phase_step

LOSS, CLIP, STEPS = hg.squared_error(), 1.0, 20
OPTIMIZERS = {"sgd": optax.sgd(1e-3), "adam": optax.adam(1e-3)}


@dataclass(frozen=True)
class Options:
    """A scanned model's training step with and without its full gradient."""

    width: int = 512
    """Features."""
    depth: int = 32
    """Blocks."""
    batches: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Examples, one row each."""
    repeats: int = 15
    """Runs of each way, in turn."""
    out: Path = Path("runs/two_phase_memory.json")
    """Where the figures go."""


def plain_step(model: hg.Layer, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """jax.grad, then optax."""
    value_and_grad = jax.value_and_grad(hg.objective(model, LOSS))

    def step(state, x, target):
        value, grads = value_and_grad(state.params, x, target)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), value

    return step


def ways_of(options: Options, name: str, batch: int, dtype: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Both steps compiled, their states, and a batch."""
    block = hg.chain(hg.layer_norm(), hg.linear(options.width), hg.tanh())
    model = hg.repeat(hg.residual(block), options.depth)
    x, target = jax.random.normal(jax.random.key(0), (2, batch, options.width), dtype)
    params = jax.jit(model.init)(jax.random.key(1), x)
    optimizer = OPTIMIZERS[name]
    clipped = optax.chain(optax.clip_by_global_norm(CLIP), optimizer)
    steps = {
        "jax.grad": (plain_step(model, clipped), clipped),
        "two-phase": (two_phase_step(model, LOSS, optimizer, CLIP), optimizer),
    }
    states = {way: jax.tree.map(jnp.copy, init_state(params, of_way)) for way, (_, of_way) in steps.items()}
    compiled = {
        way: jax.jit(step, donate_argnums=0).lower(states[way], x, target).compile() for way, (step, _) in steps.items()
    }
    return compiled, states, (x, target)


def measure(options: Options, name: str, batch: int) -> dict[str, Any]:
    """One row."""
    compiled, states, data = ways_of(options, name, batch, jnp.float32)
    times: dict[str, list[float]] = {way: [] for way in compiled}
    row: dict[str, Any] = {"optimizer": name, "batch": batch}
    for number in range(max(options.repeats, STEPS) + 1):
        for way, step in compiled.items():
            start = time.perf_counter()
            states[way], _ = step(states[way], *data)
            jax.block_until_ready(states[way])
            times[way].append(time.perf_counter() - start)
        if number + 1 == STEPS:
            row["apart_float32"] = apart(states)
    plain, two_phase = (np.array(times[way][1:]) for way in compiled)  # the first warms up
    memory = {way: step.memory_analysis().temp_size_in_bytes for way, step in compiled.items()}
    with jax.enable_x64(True):
        compiled, states, data = ways_of(options, name, batch, jnp.float64)
        for _ in range(STEPS):
            states = {way: step(states[way], *data)[0] for way, step in compiled.items()}
        row["apart_float64"] = apart(states)
    return row | {
        "temp_bytes": memory,
        "temp_ratio": memory["two-phase"] / memory["jax.grad"],
        "ms": {way: 1e3 * float(np.median(seconds[1:])) for way, seconds in times.items()},
        "time_ratio": float(np.median(two_phase / plain)),
    }


def apart(states: dict[str, TrainState]) -> float:
    """How far two parameters are apart, as a share of their norm; the worst."""
    one, two = (jax.tree.leaves(state.params) for state in states.values())
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(one, two, strict=True))


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return the rows."""
    for name in ("width", "depth", "repeats"):
        check_count("two_phase_memory", name, getattr(options, name))
    rows = [measure(options, name, batch) for name in OPTIMIZERS for batch in options.batches]
    table = Table(title=f"{options.depth} blocks of width {options.width}, two-phase / jax.grad", title_justify="left")
    for heading in ("optimiser", "batch", "temp bytes", "temp", "time", "float32", "float64"):
        table.add_column(heading, justify="left" if heading == "optimiser" else "right")
    for row in rows:
        ratios = (
            f"{row['temp_ratio']:.3f}",
            f"{row['time_ratio']:.2f}",
            f"{row['apart_float32']:.0e}",
            f"{row['apart_float64']:.0e}",
        )
        table.add_row(row["optimizer"], str(row["batch"]), f"{row['temp_bytes']['two-phase']:,}", *ratios)
    Console().print(table)
    settings = {"width": options.width, "depth": options.depth, "clip_global_norm": CLIP, "steps": STEPS}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**machine(), **settings, "rows": rows}, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    try:
        run(tyro.cli(Options))
    except hg.InputError as problem:
        sys.exit(str(problem))
