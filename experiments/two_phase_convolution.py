"""What does a two-phase update of convolutions cost, against a plain step?

One training step with the gradient clipped to a global norm, two ways: `two_phase_step`, and `train_step` with
`optax.clip_by_global_norm`. For each network: the ratio of their times (processor time, in turn, in one process; the
median of pairs) and of XLA's temporary memory.

    python experiments/two_phase_convolution.py --out runs/two_phase_convolution.json
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import study

import handgrad as hg
from handgrad.training import init_state, train_step, two_phase_step

LOSS = hg.squared_error()


@dataclass(frozen=True)
class Options:
    """Two-phase updates of convolutions against plain steps."""

    width: int = 64
    """Features of each layer."""
    size: int = 16
    """Side of the images."""
    batch: int = 8
    """Examples."""
    steps: int = 20
    """Steps of each way."""
    clip: float = 0.1
    """The global norm that gradients are clipped to."""
    out: Path = Path("runs/two_phase_convolution.json")
    """Where the figures go."""


def networks(width: int) -> dict[str, hg.Layer]:
    """Layers from images to images of `width` features."""

    def block(**options: Any) -> hg.Layer:
        return hg.residual(hg.chain(hg.convolution(width, 3, **options), hg.tanh()))

    return {
        "two layers": hg.chain(block(), block()),
        "groups": hg.chain(block(groups=width // 2), block(groups=width)),
        "repeat": hg.repeat(block(), 3),
    }


def measure(options: Options, name: str) -> dict[str, Any]:
    """One row: both ways in turn."""
    model, sgd = networks(options.width)[name], optax.sgd(1e-3)
    whole = optax.chain(optax.clip_by_global_norm(options.clip), sgd)
    shape = (options.batch, options.size, options.size, options.width)
    x, target = jax.random.normal(jax.random.key(0), (2, *shape), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(1), x)
    states = [init_state(params, optimizer) for optimizer in (sgd, whole)]
    steps = two_phase_step(model, LOSS, sgd, options.clip), train_step(model, LOSS, whole)
    programs = [jax.jit(step).lower(state, x, target).compile() for step, state in zip(steps, states, strict=True)]
    runs = {
        way: partial(program, state, x, target)
        for way, program, state in zip(("two phases", "plain"), programs, states, strict=True)
    }
    seconds = study.in_turn(runs, options.steps, clock=time.process_time)
    ours, plain = map(study.temp_bytes, programs)
    return {
        "network": name,
        "seconds": statistics.median(seconds["plain"]),
        "time_ratio": study.ratio(seconds["two phases"], seconds["plain"]),
        "memory_ratio": ours / plain,
    }


def run(options: Options) -> list[dict[str, Any]]:
    """Print the table, write the figures, return them."""
    study.begin("two_phase_convolution", options, "width", "size", "batch", "steps")
    rows = [measure(options, name) for name in networks(options.width)]
    title = f"{options.width} features, float32, jax {jax.__version__}"
    table = study.table(title, "network", "train_step, ms", "time ratio", "memory ratio")
    for row in rows:
        ratios = (f"{row[name]:.2f}" for name in ("time_ratio", "memory_ratio"))
        table.add_row(row["network"], f"{row['seconds'] * 1e3:.1f}", *ratios)
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
