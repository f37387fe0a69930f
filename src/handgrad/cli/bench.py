"""handgrad bench: hand-written gradients against jax.grad, alternating in one process."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table

from handgrad import layers
from handgrad.backprop import objective, value_and_grad
from handgrad.checks import check_count
from handgrad.cli.output import check_writable
from handgrad.layers import Layer
from handgrad.models import mlp
from handgrad.training import machine

# name: (sizes, activation, batch)
MLPS = {
    "784-30-10 sigmoid": ((784, 30, 10), layers.sigmoid, 10),
    "784-256-256-10 relu": ((784, 256, 256, 10), layers.relu, 128),
    "256 × 6 gelu": ((256,) * 6 + (10,), layers.gelu, 256),
    "512 × 4 tanh": ((512,) * 4 + (10,), layers.tanh, 256),
}
REPEATED = (4, 64)


@dataclass(frozen=True)
class Bench:
    """Time hand-written gradients against jax.grad on a few MLPs."""

    repeats: int = 100
    """Number of pairs of runs, one by hand and one by jax.grad."""
    json: Path | None = None
    """A file to write the figures to, as JSON."""


def main(options: Bench) -> int:
    """The command; its exit status is 0."""
    console = Console()
    check_count("bench", "repeats", options.repeats)
    if options.json:
        check_writable("bench", "json", options.json)
    rows = []
    for name, (sizes, activation, batch) in MLPS.items():
        with console.status(name):
            rows.append({"model": name, "batch": batch, **measure(mlp(sizes, activation()), sizes, batch, options)})
    with console.status("repeat"):
        repeated = [measure_repeat(n) for n in REPEATED]
    console.print(_table(rows))
    few, many = repeated
    compiling = many["compile_s"] / few["compile_s"]
    console.print(
        f"repeat(layer, {many['n']}) compiles in {compiling:.2f} × the time of repeat(layer, {few['n']}); temp memory"
    )
    for row in repeated:
        console.print(
            f"  {row['n']:2d} layers: {row['temp_bytes']:,} bytes, beside {row['parameter_bytes']:,} of parameters"
        )
    if options.json:
        options.json.write_text(json.dumps({**machine(), "mlps": rows, "repeat": repeated}, indent=1) + "\n")
    return 0


def measure(model: Layer, sizes: tuple[int, ...], batch: int, options: Bench) -> dict[str, Any]:
    """Both gradients of one model: medians over pairs of runs, compile time, temporary memory, largest difference."""
    loss = layers.softmax_cross_entropy()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0]), np.float32)
    labels = rng.integers(0, sizes[-1], batch)
    arguments = jax.device_put((jax.jit(model.init)(jax.random.key(0), x), x, labels))
    ways = {"hand": value_and_grad(model, loss), "autodiff": jax.value_and_grad(objective(model, loss))}
    compiled, figures = {}, {}
    for way, function in ways.items():
        compiled[way], seconds = compile_timed(function, arguments)
        figures[f"{way}_compile_s"] = seconds
        figures[f"{way}_temp_bytes"] = compiled[way].memory_analysis().temp_size_in_bytes
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats + 2):
        for way, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[way].append(time.perf_counter() - start)
    hand, autodiff = (np.array(times[way][2:]) for way in ways)  # the first two pairs warm up
    results = [jax.tree.leaves(function(*arguments)) for function in compiled.values()]
    return figures | {
        "hand_ms": 1e3 * float(np.median(hand)),
        "autodiff_ms": 1e3 * float(np.median(autodiff)),
        "time_ratio": float(np.median(hand / autodiff)),
        "temp_ratio": figures["hand_temp_bytes"] / max(figures["autodiff_temp_bytes"], 1),
        "largest_error": max(relative_error(one, two) for one, two in zip(*results, strict=True)),
    }


def measure_repeat(n: int) -> dict[str, Any]:
    """Compile time and temp memory of a residual block of width 512, n times, at batch 1."""
    model = layers.repeat(layers.residual(layers.chain(layers.linear(512), layers.tanh())), n)
    x = np.ones((1, 512), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    compiled, seconds = compile_timed(value_and_grad(model, layers.squared_error()), (params, x, x))
    parameter_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    temp_bytes = compiled.memory_analysis().temp_size_in_bytes
    return {"n": n, "compile_s": seconds, "temp_bytes": temp_bytes, "parameter_bytes": parameter_bytes}


def compile_timed(
    function: Callable[..., PyTree], arguments: tuple[PyTree, ...], repeats: int = 3
) -> tuple[Any, float]:
    """The compiled function, and the median of the seconds it takes from tracing to machine code."""
    seconds, compiled = [], None
    for _ in range(repeats):
        jax.clear_caches()
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    return compiled, float(np.median(seconds))


def relative_error(value: ArrayLike, reference: ArrayLike) -> float:
    """max |value − reference| / max |reference|; 0 where both are all zeros, NaN where either has a NaN."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    difference = np.max(np.abs(value - reference), initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(difference / np.max(np.abs(reference), initial=0.0)) if difference != 0 else 0.0


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="value and gradient, hand / jax.grad", title_justify="left")
    for heading in ("model", "batch", "hand ms", "time", "temp", "compile s", "error"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["model"],
            str(row["batch"]),
            f"{row['hand_ms']:.3f}",
            f"{row['time_ratio']:.3f}",
            f"{row['temp_ratio']:.3f}",
            f"{row['hand_compile_s']:.2f}/{row['autodiff_compile_s']:.2f}",
            f"{row['largest_error']:.1e}",
        )
    return table
