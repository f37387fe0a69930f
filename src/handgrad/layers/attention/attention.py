"""multi_head_attention: every token asks the tokens it may see."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.checks import (
    InputError,
    check_array,
    check_count,
    check_params,
    check_positive,
    check_residuals,
    describe,
    inside,
)
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import Initializer, linear
from handgrad.rules.attention._scores import check_options

__all__ = [
    "MultiHeadAttentionParams",
    "multi_head_attention",
]

Array = jax.Array


class MultiHeadAttentionParams(NamedTuple):
    """Parameters of `multi_head_attention`: of four linear layers.

    Attributes:
      query: LinearParams, W (n_in, heads × head_size).
      key: LinearParams, W (n_in, kv_heads × head_size).
      value: LinearParams, W (n_in, kv_heads × head_size).
      output: LinearParams, W (heads × head_size, n_in).
    """

    query: Any
    key: Any
    value: Any
    output: Any


class MultiHeadAttentionResiduals(NamedTuple):
    """What each of the rules inside keeps; `turned` is that of the rotated queries and keys, or None."""

    query: Any
    key: Any
    value: Any
    turned: Any
    attention: Any
    output: Any


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
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = [Y₁ … Y_heads] W_output, Y_h the attention of head h's queries, keys and values, all of them linear in X.

    X is (batch, tokens, n_in), and Y is like it. The key of `forward` is dropout's.

    Args:
      heads: how many attentions side by side.
      kv_heads: heads of keys and values, a divisor of heads; fewer are shared among groups. None is as many as heads.
      head_size: features of a head; None is n_in / heads.
      bias: False leaves the biases of all four projections away.
      causal, window, softcap, dropout: as attention_forward.
      rotary: the base of a rotary position embedding of queries and keys (form "half"), or None for none.
      tile: None is plain attention; a number is tiled attention with so many keys at a time.
      init_W: initializer of the four weights, (key, shape, dtype) -> array; biases begin at zero.
    Raises:
      InputError: an option of the wrong kind; kv_heads does not divide heads; at trace time, heads that do not divide
        the width, an odd head size for a rotary embedding, params of another layer, and as the rules inside.
    Derivation: docs/derivations/attention/attention.md
    """
    where = "multi_head_attention"
    kv_heads = heads if kv_heads is None else kv_heads
    counts = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "tile": tile}
    for name, value in counts.items():
        if value is not None or name == "heads":
            check_count(where, name, value)
    if heads % kv_heads:
        raise InputError(f"{where}: kv_heads must divide heads, got {kv_heads} and {heads}")
    if rotary is not None:
        check_positive(where, "rotary", rotary)
    check_options(where, 1, None, causal, window, softcap, dropout)
    options: dict[str, Any] = {"causal": causal, "window": window, "softcap": softcap, "dropout": dropout}
    rule = rules.attention if tile is None else rules.tiled_attention.with_options(tile=tile)
    attend, pull = rule.with_options(**options)

    def projections(x: Any) -> tuple[MultiHeadAttentionParams, int]:
        """The four linear layers for an input like x, and the size of a head."""
        check_array(where, "x", x)
        if len(x.shape) != 3:
            raise InputError(f"{where}: x must have shape (batch, tokens, features), got {describe(x)}")
        n_in = x.shape[2]
        if head_size is None and n_in % heads:
            raise InputError(f"{where}: heads must divide the width of x, got {heads} heads for {describe(x)}")
        size = head_size or n_in // heads

        def to(n: int, n_in: int) -> Layer:
            return linear(n, n_in=n_in, bias=bias, init_W=init_W)

        kv = to(kv_heads * size, n_in)
        return MultiHeadAttentionParams(to(heads * size, n_in), kv, kv, to(n_in, heads * size)), size

    def init(key, x):
        layers, size = projections(x)
        merged = jax.ShapeDtypeStruct((*x.shape[:2], heads * size), x.dtype)
        keys = jax.random.split(key, 4)
        return MultiHeadAttentionParams(
            *(layer.init(k, x) for layer, k in zip(layers[:3], keys[:3], strict=True)),
            output=layers.output.init(keys[3], merged),
        )

    def forward(params, x, key=None):
        check_params(where, params, MultiHeadAttentionParams)
        layers, size = projections(x)

        def heads_of(name: str) -> tuple[Array, Any]:
            with inside(name):
                A, kept = getattr(layers, name).forward(getattr(params, name), x)
            return A.reshape(*x.shape[:2], A.shape[2] // size, size), kept

        (Q, query), (K, of_key), (V, value) = heads_of("query"), heads_of("key"), heads_of("value")
        turned = None
        if rotary is not None:
            positions = jnp.arange(x.shape[1])
            Q, turned_Q = rules.rotary_forward(Q, positions, base=rotary)
            K, turned_K = rules.rotary_forward(K, positions, base=rotary)
            turned = turned_Q, turned_K
        Y, attention = attend(Q, K, V, key=key)
        with inside("output"):
            y, output = layers.output.forward(params.output, Y.reshape(*x.shape[:2], heads * size))
        return y, MultiHeadAttentionResiduals(query, of_key, value, turned, attention, output)

    def backward(residuals, dy):
        residuals = check_residuals(where, residuals, MultiHeadAttentionResiduals)
        layers, size = projections(residuals.query.X)
        dY, doutput = layers.output.backward(residuals.output, dy)
        dQ, dK, dV, *_ = pull(residuals.attention, dY.reshape(*dy.shape[:2], heads, size))
        if rotary is not None:
            dQ, _ = rules.rotary_backward(residuals.turned[0], dQ, base=rotary)
            dK, _ = rules.rotary_backward(residuals.turned[1], dK, base=rotary)
        dx_q, dquery = layers.query.backward(residuals.query, dQ.reshape(*dy.shape[:2], heads * size))
        dx_k, dkey = layers.key.backward(residuals.key, dK.reshape(*dy.shape[:2], kv_heads * size))
        dx_v, dvalue = layers.value.backward(residuals.value, dV.reshape(*dy.shape[:2], kv_heads * size))
        return dx_q + dx_k + dx_v, MultiHeadAttentionParams(dquery, dkey, dvalue, doutput)

    return Layer(init, forward, backward)
