"""What do products with the GGN and the Hessian cost, in gradients?

After one linearization each, a product of `ggn_vector_product` and of `hessian_vector_product`, and of jax.linearize of
jax.grad; then `jax.jvp` of jax.grad, which linearizes anew for each product; and the passes that give `kfac_factors`
from the gradient's factors and from one draw of targets. All in float32, all compiled, in turn with ONE value and
gradient by hand: what counts is the median of the ratios. Beside them, the bytes that a linearization keeps (what it
shares with the parameters or within itself counted once).

    OPENBLAS_NUM_THREADS=1 python experiments/curvature_cost.py --out docs/results/curvature_cost.json
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import study

import handgrad as hg
from handgrad.folds.curvature import ggn_vector_product, hessian_vector_product, kfac_factors, sampled_factors


@dataclass(frozen=True)
class Options:
    """Products with curvature, timed against one gradient."""

    models: tuple[Literal["mlp", "block"], ...] = ("mlp", "block")
    """A multi-layer perceptron, a transformer's block."""
    width: int = 512
    """Features of each of the four layers of the mlp; half of them of a token in the transformer's block."""
    batch: int = 256
    """Examples of the mlp; a 32nd of them sequences of 64 tokens for the block."""
    repeats: int = 60
    """How often each is timed."""
    out: Path = Path("runs/curvature_cost.json")
    """Where the figures go."""


def problems(options: Options) -> dict[str, tuple[Any, Any, Any, Any]]:
    """model, loss, x and target of each."""
    keys = jax.random.split(jax.random.key(0), 4)
    width, d, sequences = options.width, options.width // 2, max(options.batch // 32, 1)
    x = jax.random.normal(keys[0], (options.batch, width))
    labels = jax.random.randint(keys[1], (options.batch,), 0, width)
    tokens, target = jax.random.normal(keys[2], (2, sequences, 64, d))
    attention = hg.chain(hg.layer_norm(), hg.multi_head_attention(4, causal=True))
    feedforward = hg.chain(hg.layer_norm(), hg.linear(4 * d), hg.gelu(approximate=True), hg.linear(d))
    block = hg.chain(hg.residual(attention), hg.residual(feedforward))
    return {
        "mlp": (hg.mlp((width,) * 5, hg.tanh()), hg.softmax_cross_entropy(), x, labels),
        "block": (block, hg.l2_loss(), tokens, target),
    }


def programs(model: Any, loss: Any, x: Any, target: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """What is timed, the gradient first; and the linearizations."""
    params = jax.jit(model.init)(jax.random.key(1), x)
    v = jax.tree.map(lambda p: jax.random.normal(jax.random.key(2), p.shape, p.dtype), params)
    by_autodiff = jax.grad(hg.objective(model, loss))

    def linearized(params):
        return jax.linearize(lambda p: by_autodiff(p, x, target), params)[1]

    @jax.jit
    def multiply(product, v):
        return product(v)

    @jax.jit
    def anew(params, v):
        return jax.jvp(lambda p: by_autodiff(p, x, target), (params,), (v,))[1]

    @jax.jit
    def of_own_factors(params):
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        return hg.materialize(factors), kfac_factors(factors)

    @jax.jit
    def of_a_draw(params):
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        drawn = sampled_factors(model, loss)(params, x, target, jax.random.key(3))
        return hg.materialize(factors), kfac_factors(drawn)

    gradient = jax.jit(hg.value_and_grad(model, loss))
    products = {
        "GGN product": jax.jit(partial(ggn_vector_product, model, loss))(params, x, target),
        "Hessian product": jax.jit(partial(hessian_vector_product, model, loss))(params, x, target),
        "jax.linearize of jax.grad": jax.jit(linearized)(params),
    }
    timed: dict[str, Callable[[], Any]] = {"gradient": lambda: gradient(params, x, target)}
    timed |= {name: partial(multiply, product, v) for name, product in products.items()}
    timed |= {
        "jax.jvp of jax.grad": lambda: anew(params, v),
        "gradient and its K-FAC": lambda: of_own_factors(params),
        "gradient and K-FAC of a draw": lambda: of_a_draw(params),
    }
    return timed, {name: kept_bytes(product) for name, product in products.items()}


def kept_bytes(product: Any) -> int:
    """Bytes of the buffers behind a product, each counted once."""
    return sum({leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in jax.tree.leaves(product)}.values())


def medians(timed: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds, and the median of the ratios to the first of them."""
    seconds = study.in_turn(timed, repeats)
    first = next(iter(seconds.values()))
    return {
        name: {"milliseconds": round(1e3 * statistics.median(times), 3), "ratio": round(study.ratio(times, first), 3)}
        for name, times in seconds.items()
    }


def run(options: Options) -> dict[str, Any]:
    """Print the tables, write the figures, return them."""
    study.begin("curvature_cost", options, "width", "batch", "repeats")
    if options.width % 8:
        raise hg.InputError(f"curvature_cost: width must be a multiple of 8, for 4 heads, got {options.width}")
    figures, tables = {}, []
    for model, problem in problems(options).items():
        if model not in options.models:
            continue
        timed, kept = programs(*problem)
        figures[model] = medians(timed, options.repeats)
        for name, count in kept.items():
            figures[model][name]["kept_bytes"] = count
        title = f"{model}, width {options.width}, batch {options.batch}"
        tables.append(study.table(title, "", "ms", "in gradients", "bytes kept"))
        for name, row in figures[model].items():
            numbers = f"{row['milliseconds']:.2f}", f"{row['ratio']:.2f}", f"{row.get('kept_bytes', 0):,}"
            tables[-1].add_row(name, *numbers)
    study.publish(options.out, options, *tables, figures=figures)
    return figures


if __name__ == "__main__":
    study.main(run, Options)
