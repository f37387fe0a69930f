"""handgrad costs: how each parameter's per-example norms are computed, from shapes alone."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from rich.console import Console

from handgrad import layers, models
from handgrad.backprop import value_and_factors
from handgrad.checks import InputError, check_count
from handgrad.folds.costs import costs
from handgrad.layers import Layer


@dataclass(frozen=True)
class Costs:
    """Factor, shape, method and cost of every parameter of a model at its default size."""

    model: Literal["lenet5", "lstm_language_model", "gpt2", "llama"] = "gpt2"
    """The model; only its shapes are computed."""
    batch: int = 8
    """Number of examples."""
    tokens: int | None = None
    """Number of tokens of each example, for language models alone; 64 where it isn't given."""


def main(options: Costs) -> int:
    """The command; its exit status is 0."""
    check_count("costs", "batch", options.batch)
    if options.tokens is not None:
        check_count("costs", "tokens", options.tokens)
        if options.model == "lenet5":
            raise InputError(f"costs: tokens must be left out for lenet5, which has none, got {options.tokens}")
    model, x, target = _made(options)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    _, factors = jax.eval_shape(value_and_factors(model, layers.softmax_cross_entropy()), params, x, target)
    table = costs(factors)
    console = Console()
    console.print(str(table), soft_wrap=True, highlight=False)
    chosen = sum(row.costs[row.method].flops for row in table)
    direct = sum(row.costs["direct"].flops for row in table)
    console.print(
        f"{chosen:,} FLOPs for an example's norm; {direct:,} if every gradient were materialized", soft_wrap=True
    )
    return 0


def _made(options: Costs) -> tuple[Layer, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The model, the shape of its input and that of its target."""
    ids = jax.ShapeDtypeStruct((options.batch, options.tokens or 64), jnp.int32)
    if options.model == "lenet5":
        images = jax.ShapeDtypeStruct((options.batch, 28, 28, 1), jnp.float32)
        return models.lenet5(), images, jax.ShapeDtypeStruct((options.batch,), jnp.int32)
    made = {
        "lstm_language_model": lambda: models.lstm_language_model(models.LstmLanguageModelConfig(10_000)),
        "gpt2": models.gpt2,
        "llama": models.llama,
    }
    return made[options.model](), ids, ids
