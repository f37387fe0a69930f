"""The four linear layers of multi_head_attention."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Float

from handgrad import rules
from handgrad.checks import InputError, check_array, check_choice, check_count, describe
from handgrad.layers.layer import Layer, placed
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.linear.lora import LoraParams, lora_linear

Features = Float[Array, "batch tokens n"]
ProjectionParams = LinearParams | LoraParams
ProjectionResiduals = rules.LinearResiduals | rules.LoraLinearResiduals


class Projections(NamedTuple):
    """The layers, and the features of a head."""

    query: Layer
    key: Layer
    value: Layer
    output: Layer
    size: int


OfInputs = Callable[[Features | jax.ShapeDtypeStruct, Features | jax.ShapeDtypeStruct], Projections]


def projections(
    where: str,
    heads: int,
    kv_heads: int,
    head_size: int | None,
    bias: bool | Literal["qkv"],
    lora_rank: int | None,
    init_W: Initializer,
) -> OfInputs:
    """(X, context) -> the layers for an input and a context like these; the arguments are multi_head_attention's."""
    for name, value in {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "lora_rank": lora_rank}.items():
        if value is not None or name == "heads":
            check_count(where, name, value)
    if heads % kv_heads:
        raise InputError(f"{where}: kv_heads must divide heads, got {kv_heads} and {heads}")
    check_choice(where, "bias", bias, (True, False, "qkv"))

    def to(name: str, n: int, n_in: int) -> Layer:
        has_bias = bias is True or (bias == "qkv" and name != "output")
        if lora_rank is not None:
            return placed(name, lora_linear(n, rank=lora_rank, bias=has_bias, init_W=init_W))
        return placed(name, linear(n, n_in=n_in, bias=has_bias, init_W=init_W))

    def of(X: Features | jax.ShapeDtypeStruct, context: Features | jax.ShapeDtypeStruct) -> Projections:
        for name, A in (("x", X), ("x.context", context)):
            check_array(where, name, A)
            if len(A.shape) != 3:
                raise InputError(f"{where}: {name} must have shape (batch, tokens, features), got {describe(A)}")
        n_in, n_context = X.shape[2], context.shape[2]
        if head_size is None and n_in % heads:
            raise InputError(f"{where}: heads must divide the width of x, got {heads} heads for {describe(X)}")
        size = head_size or n_in // heads
        key, value = (to(name, kv_heads * size, n_context) for name in ("key", "value"))
        return Projections(to("query", heads * size, n_in), key, value, to("output", n_in, heads * size), size)

    return of
