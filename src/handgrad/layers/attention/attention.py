"""multi_head_attention: every token attends to the tokens that it may see."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad import rules
from handgrad.checks import (
    InputError,
    check_array,
    check_count,
    check_params,
    check_positive,
    check_residuals,
    describe,
)
from handgrad.layers.layer import Layer, composed, from_rule, placed
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.linear.lora import LoraParams, lora_linear
from handgrad.rule import Rule
from handgrad.rules.attention._arguments import check_options
from handgrad.rules.attention._tiles import is_worth_tiling

__all__ = ["MultiHeadAttentionParams", "multi_head_attention"]

Tokens = Float[Array, "batch tokens n"]
Heads = Float[Array, "batch tokens heads n"]
AttentionResiduals = rules.AttentionResiduals | rules.TiledAttentionResiduals
ProjectionParams = LinearParams | LoraParams
ProjectionResiduals = rules.LinearResiduals | rules.LoraLinearResiduals


class MultiHeadAttentionParams(NamedTuple):
    """Parameters of `multi_head_attention`: of four linear layers, with adapters where it has a rank of them.

    Attributes:
      query: W (n_in, heads × head_size).
      key, value: W (n_in, kv_heads × head_size).
      output: W (heads × head_size, n_in).
    """

    query: ProjectionParams
    key: ProjectionParams
    value: ProjectionParams
    output: ProjectionParams


class MultiHeadAttentionResiduals(NamedTuple):
    """What each of the rules inside keeps; `rotated` is of queries and keys, or None."""

    query: ProjectionResiduals
    key: ProjectionResiduals
    value: ProjectionResiduals
    rotated: tuple[rules.RotaryResiduals, rules.RotaryResiduals] | None
    attention: AttentionResiduals
    output: ProjectionResiduals


class Projections(NamedTuple):
    """The four linear layers."""

    query: Layer
    key: Layer
    value: Layer
    output: Layer


def multi_head_attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_size: int | None = None,
    bias: bool = True,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    rotary: float | None = None,
    dropout: float = 0.0,
    tile: int | None = None,
    lora_rank: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = [Y₁ … Y_heads] W_output, Y_h the attention of head h's queries, keys and values, all of them linear in X.

    X is (batch, tokens, n_in), and Y is like it. The key of `forward` is dropout's.

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> layer = layers.multi_head_attention(4, kv_heads=2, causal=True, rotary=10000.0)
    >>> layer.init(jax.random.key(0), jnp.ones((1, 10, 32))).key.W.shape
    (32, 16)

    Args:
      heads: how many attentions side by side.
      kv_heads: heads of keys and values, a divisor of heads, shared among groups (grouped-query attention); None is as
        many as heads.
      head_size: features of a head; None is n_in / heads.
      bias: False omits the biases of all four projections.
      causal, window, softcap, dropout: as attention_forward.
      rotary: the base of a rotary position embedding of queries and keys (form "half"), or None for none.
      tile: a number is tiled attention with so many queries and keys at a time; None is tiled attention where there are
        many tokens, 256 and more on a CPU, and plain attention, which keeps its probabilities, where there are few.
      lora_rank: the rank of adapters beside the four weights, as `lora_linear` has them; None for none.
      init_W: initializer of the four weights, (key, shape, dtype) -> array; biases begin at zero.
    Derivation: docs/derivations/attention/attention.md
    """
    where = "multi_head_attention"
    kv_heads = heads if kv_heads is None else kv_heads
    counts = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "tile": tile, "lora_rank": lora_rank}
    for name, value in counts.items():
        if value is not None or name == "heads":
            check_count(where, name, value)
    if heads % kv_heads:
        raise InputError(f"{where}: kv_heads must divide heads, got {kv_heads} and {heads}")
    if rotary is not None:
        check_positive(where, "rotary", rotary)
    check_options(where, 1, None, causal, window, softcap, dropout)
    attend = placed("attention", _of_heads(tile, causal=causal, window=window, softcap=softcap, dropout=dropout))
    rotate = None if rotary is None else placed("rotary", _rotary(rotary))

    def projections(x: Tokens | jax.ShapeDtypeStruct) -> tuple[Projections, int]:
        """The four linear layers for an input like x, and the size of a head."""
        check_array(where, "x", x)
        if len(x.shape) != 3:
            raise InputError(f"{where}: x must have shape (batch, tokens, features), got {describe(x)}")
        n_in = x.shape[2]
        if head_size is None and n_in % heads:
            raise InputError(f"{where}: heads must divide the width of x, got {heads} heads for {describe(x)}")
        size = head_size or n_in // heads

        def to(name: str, n: int, n_in: int = n_in) -> Layer:
            if lora_rank is not None:
                return placed(name, lora_linear(n, rank=lora_rank, bias=bias, init_W=init_W))
            return placed(name, linear(n, n_in=n_in, bias=bias, init_W=init_W))

        query, output = to("query", heads * size), to("output", n_in, heads * size)
        return Projections(query, to("key", kv_heads * size), to("value", kv_heads * size), output), size

    def init(key: PRNGKeyArray, x: Tokens | jax.ShapeDtypeStruct) -> MultiHeadAttentionParams:
        layers, size = projections(x)
        merged = jax.ShapeDtypeStruct((*x.shape[:2], heads * size), x.dtype)
        keys, inputs = jax.random.split(key, 4), (x, x, x, merged)
        return MultiHeadAttentionParams(*(layer.init(k, x) for layer, k, x in zip(layers, keys, inputs, strict=True)))

    def forward(
        params: MultiHeadAttentionParams, x: Tokens, key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, MultiHeadAttentionResiduals]:
        check_params(where, params, MultiHeadAttentionParams)
        layers, size = projections(x)

        projected = zip(layers[:3], params[:3], strict=True)
        (Q, query), (K, of_key), (V, value) = (layer.forward(p, x) for layer, p in projected)
        Q, K, V = (A.reshape(*x.shape[:2], A.shape[2] // size, size) for A in (Q, K, V))
        rotated = None
        if rotate is not None:
            (Q, rotated_Q), (K, rotated_K) = rotate.forward((), Q), rotate.forward((), K)
            rotated = rotated_Q, rotated_K
        Y, attention = attend.forward((), (Q, K, V), key)
        y, output = layers.output.forward(params.output, Y.reshape(*x.shape[:2], heads * size))
        return y, MultiHeadAttentionResiduals(query, of_key, value, rotated, attention, output)

    def backward(residuals: MultiHeadAttentionResiduals, dy: Tokens) -> tuple[Tokens, MultiHeadAttentionParams]:
        residuals = check_residuals(where, residuals, MultiHeadAttentionResiduals)
        layers, size = projections(residuals.query.X)
        dY, doutput = layers.output.backward(residuals.output, dy)
        (dQ, dK, dV), _ = attend.backward(residuals.attention, dY.reshape(*dy.shape[:2], heads, size))
        if rotate is not None and residuals.rotated is not None:
            (dQ, _), (dK, _) = (rotate.backward(*pair) for pair in zip(residuals.rotated, (dQ, dK), strict=True))
        dx_q, dquery = layers.query.backward(residuals.query, dQ.reshape(*dy.shape[:2], heads * size))
        dx_k, dkey = layers.key.backward(residuals.key, dK.reshape(*dy.shape[:2], kv_heads * size))
        dx_v, dvalue = layers.value.backward(residuals.value, dV.reshape(*dy.shape[:2], kv_heads * size))
        return dx_q + dx_k + dx_v, MultiHeadAttentionParams(dquery, dkey, dvalue, doutput)

    return composed(init, forward, backward)


def _of_heads(tile: int | None, **options: Any) -> Layer:
    """The attention of (Q, K, V) as a layer: plain or tiled."""
    plain = rules.attention.with_options(**options)
    tiled = rules.tiled_attention.with_options(tile=tile, **options)

    def forward(
        params: tuple[()], x: tuple[Heads, Heads, Heads], key: PRNGKeyArray | None = None
    ) -> tuple[Heads, AttentionResiduals]:
        in_tiles = tile is not None or is_worth_tiling(x[0].shape[1], x[1].shape[1])
        return (tiled if in_tiles else plain).forward(*x, key=key)

    def backward(residuals: AttentionResiduals, dy: Heads) -> tuple[tuple[Heads, Heads, Heads], tuple[()]]:
        in_tiles = isinstance(residuals, rules.TiledAttentionResiduals)
        dQ, dK, dV, *_ = (tiled if in_tiles else plain).backward(residuals, dy)
        return (dQ, dK, dV), ()

    return Layer(lambda key, x: (), forward, backward)


def _rotary(base: float) -> Layer:
    """The rotation of queries or keys by their position in the sequence, as a layer."""
    rule = rules.rotary.with_options(base=base)

    def forward(X: Heads) -> tuple[Heads, rules.RotaryResiduals]:
        return rule.forward(X, jnp.arange(X.shape[1]))

    return from_rule(Rule(forward, lambda residuals, dY: rule.backward(residuals, dY)[:1]))
