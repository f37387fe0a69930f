"""What does the two-phase update save, and what does it cost in time?

One training step of `repeat` of residual tanh blocks, with the gradient clipped to a global norm, two ways:
`two_phase_step`, and `jax.grad` of the same scanned model with `optax.clip_by_global_norm`. Both compiled with the
parameters and the optimizer's state donated. For each optimizer and batch: XLA's temporary memory, the processor time
of a step (in turn, in one process; the median of the ratios of pairs), and how far the parameters are apart after all
steps, as a share of their norm.

    python experiments/two_phase_memory.py --out runs/two_phase_memory.json
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study

import handgrad as hg
from handgrad.training import TrainState, init_state, two_phase_step

LOSS = hg.squared_error()
OPTIMIZERS = {"sgd": optax.sgd(1e-3), "adam": optax.adam(1e-4)}
WAYS = ("two phases", "jax.grad")


@dataclass(frozen=True)
class Options:
    """Two-phase updates of a deep stack against the whole gradient."""

    width: int = 1024
    """Features of each block."""
    depth: int = 16
    """How many blocks."""
    batches: tuple[int, ...] = (16, 64, 128, 512)
    """Examples: few against the width, and many."""
    steps: int = 20
    """Steps of each way."""
    clip: float = 0.1
    """The global norm that gradients are clipped to."""
    out: Path = Path("runs/two_phase_memory.json")
    """Where the figures go."""


def steps(options: Options, optimizer: optax.GradientTransformation) -> tuple[hg.Layer, dict[str, Any]]:
    """The model, and for each way (its step, its optimizer)."""
    block = hg.residual(hg.chain(hg.linear(options.width), hg.tanh()))
    model = hg.repeat(block, options.depth)
    whole = optax.chain(optax.clip_by_global_norm(options.clip), optimizer)
    gradient = jax.value_and_grad(hg.objective(model, LOSS))

    def plain(state: TrainState, x: Any, target: Any) -> tuple[TrainState, Any]:
        value, grads = gradient(state.params, x, target)
        updates, opt_state = whole.update(grads, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), value

    return model, {
        "two phases": (two_phase_step(model, LOSS, optimizer, options.clip), optimizer),
        "jax.grad": (plain, whole),
    }


def measure(options: Options, name: str, batch: int) -> dict[str, Any]:
    """One row: memory and time of each way, and the distance of their parameters."""
    model, ways = steps(options, OPTIMIZERS[name])
    x, target = jax.random.normal(jax.random.key(0), (2, batch, options.width), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(1), x)
    row: dict[str, Any] = {
        "optimizer": name,
        "batch": batch,
        "parameters": sum(a.nbytes for a in jax.tree.leaves(params)),
    }
    programs, states = {}, {}
    for way, (step, optimizer) in ways.items():
        states[way] = init_state(jax.tree.map(jnp.copy, params), optimizer)
        programs[way] = jax.jit(step, donate_argnums=0).lower(states[way], x, target).compile()
        row[way] = {"temp_bytes": study.temp_bytes(programs[way])}

    def step_on(way: str) -> TrainState:
        states[way], _ = programs[way](states[way], x, target)
        return states[way]

    runs = {way: partial(step_on, way) for way in WAYS}
    seconds = study.in_turn(runs, options.steps, warm_up=0, clock=time.process_time)
    for way in WAYS:
        row[way]["seconds"] = statistics.median(seconds[way])
    two, one = (row[way]["temp_bytes"] for way in WAYS)
    row["memory_ratio"] = two / one
    row["time_ratio"] = study.ratio(*(seconds[way] for way in WAYS))
    found, expected = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(states[way].params)]) for way in WAYS)
    row["distance"] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return row


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return them."""
    study.begin("two_phase_memory", options, "width", "depth", "steps", "batches")
    rows = [measure(options, name, batch) for batch in options.batches for name in OPTIMIZERS]
    title = f"{options.depth} blocks of width {options.width}, float32, jax {jax.__version__}"
    bytes_of = (f"{way}: bytes" for way in WAYS)
    table = study.table(title, "optimizer", "batch", *bytes_of, "memory", "time", "distance")
    for row in rows:
        figures = (f"{row['memory_ratio']:.3f}", f"{row['time_ratio']:.2f}", f"{row['distance']:.1e}")
        table.add_row(row["optimizer"], str(row["batch"]), *(f"{row[way]['temp_bytes']:,}" for way in WAYS), *figures)
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
