"""multi_head_latent_attention: keys and values of all heads from one compressed vector a token."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_array, check_count, check_params, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.layers.attention._heads import AttentionResiduals, Form, of_heads, rotary_rule, turned
from handgrad.layers.attention.tokens import Tokens, scores_mask
from handgrad.layers.layer import Layer, composed, placed
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.normalization._norm import NormParams
from handgrad.layers.normalization.rms_norm import rms_norm
from handgrad.layers.structure.chain import chain
from handgrad.rules.attention._arguments import check_options

__all__ = ["MultiHeadLatentAttentionParams", "multi_head_latent_attention"]

Features = Float[Array, "batch tokens n"]


class MultiHeadLatentAttentionParams(NamedTuple):
    """Parameters of `multi_head_latent_attention`; no weight has a bias.

    Attributes:
      query: W (n_in, heads × (head_size + rotary_size)); with a query_rank a dict of three layers, down, norm and up.
      down: W (n_in, kv_rank + rotary_size), to the latent vector and the key that rotates.
      norm: gamma (kv_rank,), of the latent vector.
      up: W (kv_rank, heads × (head_size + value_size)), to keys and values.
      output: W (heads × value_size, n_in).
    """

    query: LinearParams | dict[str, PyTree]
    down: LinearParams
    norm: NormParams
    up: LinearParams
    output: LinearParams


class MultiHeadLatentAttentionResiduals(NamedTuple):
    """What each of the layers inside keeps; `rotated` is of queries and of the key; and x's form."""

    query: PyTree
    down: rules.LinearResiduals
    norm: PyTree
    up: rules.LinearResiduals
    rotated: tuple[rules.RotaryResiduals, rules.RotaryResiduals]
    attention: AttentionResiduals
    output: rules.LinearResiduals
    form: Form


def multi_head_latent_attention(
    heads: int,
    *,
    kv_rank: int,
    head_size: int,
    rotary_size: int,
    value_size: int | None = None,
    query_rank: int | None = None,
    rotary: float | Mapping[str, Any] = 10000.0,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
    eps: float = 1e-6,
    tile: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Multi-head attention whose keys and values are linear in a latent vector of few features, C = norm(X W_down).

        K_h = [C W_key,h   R k]      V_h = C W_value,h      Q_h = [q_h   R r_h]

    k is one key for all heads, linear in X, and R rotates it by its position, as it does r_h, a part of head h's query:
    what would have to be kept of a token for those after it is C and R k. x and dx are as multi_head_attention's,
    without a context or a bias.

    Args:
      heads: how many attentions side by side.
      kv_rank: features of the latent vector.
      head_size, rotary_size: features of a head's queries and keys that don't rotate, and that do.
      value_size: features of a head's values; None is head_size.
      query_rank: queries are linear in a normalized vector of so many features too; None takes X.
      rotary: the base, or `rules.rotary`'s options as a dict; published weights have the form "interleaved".
      scale: of the scores; None is 1 / √(head_size + rotary_size).
      causal, window, dropout: as attention_forward.
      eps: the RMS norms add it to the mean square.
      tile, init_W: as multi_head_attention.
    Derivation: docs/derivations/attention/latent.md (DeepSeek-AI, 2024)
    """
    where = "multi_head_latent_attention"
    value_size = head_size if value_size is None else value_size
    sizes = {"heads": heads, "kv_rank": kv_rank, "head_size": head_size, "rotary_size": rotary_size}
    for name, value in (sizes | {"value_size": value_size, "query_rank": query_rank, "tile": tile}).items():
        if value is not None or name in sizes:
            check_count(where, name, value)
    options = {"scale": scale, "causal": causal, "window": window, "dropout": dropout}
    turning, of_query, of_key = rotary_rule(where, rotary), head_size + rotary_size, head_size + value_size
    check_options(where, (heads, of_query), scale, causal, window, None, dropout)

    def to(n: int) -> Layer:
        return linear(n, bias=False, init_W=init_W)

    query = to(heads * of_query)
    if query_rank is not None:
        query = chain(down=to(query_rank), norm=rms_norm(eps=eps), up=query)
    query, norm = placed("query", query), placed("norm", rms_norm(eps=eps))
    down, up = placed("down", to(kv_rank + rotary_size)), placed("up", to(heads * of_key))

    def output(n_in: int) -> Layer:
        return placed("output", to(n_in))

    def init(key: PRNGKeyArray, x: PyTree) -> MultiHeadLatentAttentionParams:
        X = _checked(where, x)[0].X
        like = (jax.ShapeDtypeStruct((*X.shape[:2], n), X.dtype) for n in (kv_rank, kv_rank, heads * value_size))
        layers, inputs = (query, down, norm, up, output(X.shape[2])), (X, X, *like)
        keys = jax.random.split(key, len(layers))
        each = (layer.init(k, A) for layer, k, A in zip(layers, keys, inputs, strict=True))
        return MultiHeadLatentAttentionParams(*each)

    def forward(
        params: MultiHeadLatentAttentionParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Features, MultiHeadLatentAttentionResiduals]:
        check_params(where, params, MultiHeadLatentAttentionParams)
        x, form = _checked(where, x)
        X, turn = x.X, turned(turning, x.positions)

        Q, kept_query = query.forward(params.query, X)
        Q, R = _split(Q.reshape(*X.shape[:2], heads, of_query), head_size)
        C, kept_down = down.forward(params.down, X)
        C, k = _split(C, kv_rank)
        C, kept_norm = norm.forward(params.norm, C)
        KV, kept_up = up.forward(params.up, C)
        K, V = _split(KV.reshape(*X.shape[:2], heads, of_key), head_size)
        (R, turned_R), (k, turned_k) = turn.forward((), R), turn.forward((), k[:, :, None, :])
        Q = jnp.concatenate([Q, R], axis=3)
        K = jnp.concatenate([K, jnp.broadcast_to(k, R.shape)], axis=3)
        attend = of_heads(tile, options, scores_mask(where, x, X.shape[1]))
        Y, attention = attend.forward(None, (Q, K, V), key)
        y, kept = output(X.shape[2]).forward(params.output, Y.reshape(*X.shape[:2], heads * value_size))
        rotated = turned_R, turned_k
        return y, MultiHeadLatentAttentionResiduals(
            kept_query, kept_down, kept_norm, kept_up, rotated, attention, kept, form
        )

    def backward(
        residuals: MultiHeadLatentAttentionResiduals, dy: Features
    ) -> tuple[PyTree, MultiHeadLatentAttentionParams]:
        kept = check_residuals(where, residuals, MultiHeadLatentAttentionResiduals)
        rows = dy.shape[:2]
        dY, doutput = output(dy.shape[2]).backward(kept.output, dy)
        attend = of_heads(tile, options)
        (dQ, dK, dV), _ = attend.backward(kept.attention, dY.reshape(*rows, heads, value_size))
        (dQ, dR), (dK, dk) = _split(dQ, head_size), _split(dK, head_size)
        dk = jnp.sum(dk, axis=2, keepdims=True, dtype=accumulator(dk)).astype(dk.dtype)  # one key for all heads
        (dR, _), (dk, _) = (turning.backward(*one) for one in zip(kept.rotated, (dR, dk), strict=True))
        dC, dup = up.backward(kept.up, jnp.concatenate([dK, dV], axis=3).reshape(*rows, heads * of_key))
        dC, dnorm = norm.backward(kept.norm, dC)
        dx_down, ddown = down.backward(kept.down, jnp.concatenate([dC, dk[:, :, 0]], axis=2))
        dQ = jnp.concatenate([dQ, dR], axis=3).reshape(*rows, heads * of_query)
        dx_query, dquery = query.backward(kept.query, dQ)
        dx = dx_query + dx_down
        return Tokens(dx) if kept.form.tokens else dx, MultiHeadLatentAttentionParams(
            dquery, ddown, dnorm, dup, doutput
        )

    return composed(init, forward, backward)


def _split(A: Array, n: int) -> tuple[Array, Array]:
    """The first n features, and the others."""
    return A[..., :n], A[..., n:]


def _checked(where: str, x: PyTree) -> tuple[Tokens, Form]:
    """x as Tokens, and its form."""
    x, form = Form.of(x)
    if x.context is not None or x.bias is not None:
        raise InputError(f"{where}: x must have no context and no bias")
    check_array(where, "x", x.X)
    if len(x.X.shape) != 3:
        raise InputError(f"{where}: x must have shape (batch, tokens, features), got {describe(x.X)}")
    return x, form
