"""What do per-example norms and clipping cost beside a plain gradient, and where do the peers do as well?

Three parts, float32, every way timed in turn with the plain hand-written gradient (A B A B …) in one process:

- an mlp of 4 × 512 at batch 256: norms; clipped gradients, beside jax_privacy's at its best micro-batch, where it is
  installed; and the norms of vmap(jax.grad);
- a block of GPT, 64 tokens of 256 features: the same;
- one weight matrix, 256 × 256, over more and more tokens: both methods of the norm, and vmap(jax.grad).

    pip install -e '.[oracles]'                      # for jax_privacy's
    python experiments/per_example_cost.py --out runs/per_example_cost.json
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import study

import handgrad as hg
from handgrad.models import Gpt2Config, gpt2

LOSS, SQUARES = hg.softmax_cross_entropy(), hg.squared_error()


@dataclass(frozen=True)
class Options:
    """Per-example norms and clipping, in units of one plain gradient."""

    repeats: int = 30
    """Runs of each way, in turn."""
    batch: int = 256
    """Examples of the mlp."""
    width: int = 512
    """Features of the mlp."""
    block_batch: int = 16
    """Examples of the block."""
    features: int = 256
    """Features of the block and of the matrix."""
    tokens: tuple[int, ...] = (16, 64, 128, 256, 512, 1024)
    """Tokens over the one matrix."""
    micro_batches: tuple[int, ...] = (16, 64, 256)
    """What jax_privacy is tried with."""
    out: Path = Path("runs/per_example_cost.json")
    """Where the figures go."""


def norms(model: hg.Layer, loss: hg.Loss, **options: Any) -> Callable[..., Any]:
    """By folds."""
    return lambda *arguments: hg.sq_norms(hg.value_and_factors(model, loss)(*arguments)[1], **options)


def norms_written_out(model: hg.Layer, loss: hg.Loss) -> Callable[..., Any]:
    """By vmap(jax.grad)."""
    alone = jax.grad(hg.objective(model, loss))

    def squares(params, x, target):
        g = jax.vmap(lambda x, target: alone(params, x[None], target[None]))(x, target)
        return sum(jnp.sum(a**2, axis=tuple(range(1, a.ndim))) for a in jax.tree.leaves(g))

    return squares


def ways_of(model: hg.Layer, loss: hg.Loss, batch: int, options: Options) -> dict[str, Callable[..., Any]]:
    """Name: function of (params, x, target)."""
    ways = {
        "gradient": hg.grad(model, loss),
        "jax.grad": jax.grad(hg.objective(model, loss)),
        "norms": norms(model, loss),
        "clipped": hg.clipped_grad(model, loss, l2_clip_norm=1.0),
        "norms, vmap(jax.grad)": norms_written_out(model, loss),
    }
    try:
        from jax_privacy.clipping import clipped_grad  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return ways
    for size in options.micro_batches:
        if size <= batch:
            theirs = clipped_grad(
                hg.objective(model, loss), l2_clip_norm=1.0, batch_argnums=(1, 2), microbatch_size=size
            )
            ways[f"clipped, jax_privacy {size}"] = theirs
    return ways


def measure(ways: dict[str, Callable[..., Any]], arguments: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    """Of each way, in turn with the first one: the median of the ratios of their times; and XLA's temporary memory."""
    compiled = {name: jax.jit(way).lower(*arguments).compile() for name, way in ways.items()}
    first = next(iter(compiled.values()))
    figures = {}
    for name, run in compiled.items():
        times = study.in_turn({"first": partial(first, *arguments), "run": partial(run, *arguments)}, repeats)
        figures[name] = {
            "ms": 1e3 * median(times["run"]),
            "ratio": 1.0 if run is first else study.ratio(times["run"], times["first"]),
            "temp_bytes": study.temp_bytes(run),
        }
    return figures


def started(model: hg.Layer, x: Any) -> Any:
    """Parameters from a key."""
    return jax.jit(model.init)(jax.random.key(0), x)


def of_mlp(options: Options) -> dict[str, Any]:
    """4 × 512."""
    model = hg.mlp((options.width,) * 4 + (10,), hg.tanh())
    x = jax.random.normal(jax.random.key(1), (options.batch, options.width), jnp.float32)
    labels = jax.random.randint(jax.random.key(2), (options.batch,), 0, 10)
    arguments = started(model, x), x, labels
    return measure(ways_of(model, LOSS, options.batch, options), arguments, options.repeats)


def of_block(options: Options) -> dict[str, Any]:
    """One block of GPT-2, without the table."""
    n = options.features
    config = Gpt2Config(vocabulary=64, tokens=64, width=n, blocks=1, heads=4)
    model = gpt2(config)
    ids = jax.random.randint(jax.random.key(1), (options.block_batch, 64), 0, 64)
    arguments = started(model, ids), ids, ids
    return measure(ways_of(model, LOSS, options.block_batch, options), arguments, options.repeats)


def of_tokens(options: Options) -> list[dict[str, Any]]:
    """One matrix, more and more tokens, as many rows in all."""
    rows, n = [], options.features
    model = hg.chain(hg.linear(n, bias=False), hg.tanh(), hg.linear(n, bias=False))
    for tokens in options.tokens:
        batch = max(1, 16 * 256 // tokens)
        x = jax.random.normal(jax.random.key(1), (batch, tokens, n), jnp.float32)
        ways = {
            "gradient": hg.grad(model, SQUARES),
            "gram": norms(model, SQUARES, method="gram"),
            "direct": norms(model, SQUARES, method="direct"),
            "vmap(jax.grad)": norms_written_out(model, SQUARES),
        }
        chosen = hg.costs(jax.eval_shape(hg.value_and_factors(model, SQUARES), started(model, x), x, x)[1])[0].method
        figures = measure(ways, (started(model, x), x, x), options.repeats)
        rows.append({"tokens": tokens, "batch": batch, "chosen": chosen, "ways": figures})
    return rows


def run(options: Options) -> dict[str, Any]:
    """Print the tables, write the figures, return them."""
    study.begin("per_example_cost", options, "repeats", "batch", "width", "block_batch", "features", "tokens")
    figures = {"mlp": of_mlp(options), "block": of_block(options), "tokens": of_tokens(options)}
    tables = []
    for part in ("mlp", "block"):
        tables.append(study.table(f"{part}, times of one plain gradient", "", "time", "ms", "temp bytes"))
        for name, way in figures[part].items():
            tables[-1].add_row(name, f"{way['ratio']:.2f}", f"{way['ms']:.1f}", f"{way['temp_bytes']:,}")
    names = [name for name in figures["tokens"][0]["ways"] if name != "gradient"]
    tables.append(study.table("norms of one matrix, times of one plain gradient", "tokens", "chosen", *names))
    for row in figures["tokens"]:
        ratios = (f"{row['ways'][name]['ratio']:.2f}" for name in names)
        tables[-1].add_row(str(row["tokens"]), row["chosen"], *ratios)
    study.publish(options.out, options, *tables, **figures)
    return figures


if __name__ == "__main__":
    study.main(run, Options)
