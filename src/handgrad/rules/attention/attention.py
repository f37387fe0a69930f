"""Scaled dot-product attention, plain: the probabilities P are materialized, one for each query and key."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_cotangent, check_count, check_residuals
from handgrad.factors import Total
from handgrad.rule import Rule
from handgrad.rules.attention import _arguments as given, _scores as shared
from handgrad.rules.attention._scores import product

__all__ = ["AttentionResiduals", "alibi_slopes", "attention", "attention_backward", "attention_forward"]


class AttentionResiduals(NamedTuple):
    """The arguments, by reference, and P, which is quadratic in the number of tokens.

    Attributes:
      Q, K, V: for dK, dQ and dP.
      bias: says whether there is a dbias, its shape and dtype.
      P: probabilities before dropout, in Y's dtype; 0 where a query doesn't see a key, so that the mask is not kept.
      key: from which dropout is drawn again.
      sinks: for the dtype of their gradient.
      P_sinks: each query's probability of its head's sink, in at least float32; None without sinks.
    """

    Q: given.Queries
    K: given.Keys
    V: given.Values
    bias: given.Bias | None
    P: shared.Scores
    key: given.Key | None
    sinks: given.Sinks | None
    P_sinks: given.OfQueries | None


def attention_forward(
    Q: given.Queries,
    K: given.Keys,
    V: given.Values,
    bias: given.Bias | None = None,
    mask: given.Mask | None = None,
    key: given.Key | None = None,
    sinks: given.Sinks | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    alibi: Sequence[float] | None = None,
) -> tuple[Float[Array, "batch tokens heads n_v"], AttentionResiduals]:
    """Y = P V with P = softmax(S + B), S = scale Q Kᵀ, for each example and head.

    With a softcap, S = cap tanh(scale Q Kᵀ / cap). With dropout, Y = (P ∘ R) V, where R is 0 or 1 / (1 − dropout).
    Query i sees key j unless the mask is False there, or causal and j > i, or a window and |i − j| ≥ window. A query
    that sees no key has P = 0, hence Y = 0 and no gradient, as in torch (jax.nn gives it the mean of all values).
    With sinks, each head's softmax has one more logit, a number, whose share of P goes to no value: a head can attend
    to nothing (Xiao et al., 2024; sinks of 0 are the softmax with 1 + Σ in its denominator).

    Args:
      Q: tokens attend to keys; both counts may differ.
      K: kv_heads divides heads, and query heads h with the same h // (heads / kv_heads) share a key head
        (grouped-query attention).
      bias: added to the scores; each of its first three axes may be 1, and is broadcast.
      mask: likewise: True where the query may see the key. What a key holds that no query may see, or a query that may
        see no key, is not read: it may be NaN.
      key: random key for dropout; None drops nothing.
      sinks: a learned logit for each head, in its softmax's denominator alone, or None.
      scale: a positive number; None is 1 / √n.
      causal: hides the keys after the query: those with j > i, also where tokens and keys differ in number.
      window: with causal, a query sees the last `window` keys, itself included; without, as many on both sides.
      softcap: a positive number, the limit of |S|; None is no limit.
      dropout: share of P that is dropped, in [0, 1).
      alibi: a slope for each head: slope |i − j| is taken off the score of query i and key j (Press et al., 2022).
    Derivation: docs/derivations/attention/attention.md (Vaswani et al., 2017)
    """
    where = "attention_forward"
    given.check_arguments(where, Q, K, V, bias, mask, key, sinks)
    options = given.check_options(where, Q.shape, scale, causal, window, softcap, dropout, alibi)
    dtype, (keys, kv_heads) = jnp.result_type(Q, K, V), K.shape[1:3]
    Q, K, V = shared.without_hidden(Q, K, V, mask)
    i, j = jnp.arange(Q.shape[1]), jnp.arange(keys)
    B, grouped_mask = (None if A is None else shared.grouped_scores(A, kv_heads) for A in (bias, mask))
    grouped_Q = shared.grouped(Q, kv_heads)
    S = shared.scores(grouped_Q, jnp.swapaxes(K, 1, 2), options)
    Z = shared.logits(S, B, grouped_mask, i, j, options)
    sink = shared.sink_logits(grouped_Q, sinks, Z.dtype)
    M = jnp.maximum(jnp.max(Z, axis=-1, keepdims=True), sink)
    E, E_sink = shared.exponential(Z, M), shared.exponential(sink, M)
    total = jnp.sum(E, axis=-1, keepdims=True) + E_sink
    P = shared.normalized(E, Z, total).astype(dtype)
    Y = product("bgrts,bgsn->bgrtn", shared.dropped(P, key, i, j, options), jnp.swapaxes(V, 1, 2))
    P_sinks = None if sinks is None else shared.ungrouped(shared.normalized(E_sink, sink, total))
    return shared.ungrouped(Y).astype(dtype), AttentionResiduals(Q, K, V, bias, P, key, sinks, P_sinks)


def attention_backward(
    residuals: AttentionResiduals,
    dY: Float[Array, "batch tokens heads n_v"],
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    alibi: Sequence[float] | None = None,
) -> tuple[given.Queries, given.Keys, given.Values, given.Bias | None, None, None, Total | None]:
    """Pull dY back through Y = P V, P = softmax(scale Q Kᵀ + B).

        dV = Pᵀ dY      dP = dY Vᵀ      dB = dS = P ∘ (dP − D 1ᵀ)      D = (P ∘ dP) 1
        dQ = scale dS K      dK = scale dSᵀ Q

    With dropout, dV = (P ∘ R)ᵀ dY and dP = R ∘ dY Vᵀ. With a softcap, dS = dB ∘ (1 − tanh²). dK and dV sum over the
    heads of a group, and dB over the axes along which the bias is broadcast. dsinks = −P_sinksᵀ D: a sink's value is 0.

    Derivation: docs/derivations/attention/attention.md
    """
    where = "attention_backward"
    Q, K, V, bias, P, key, sinks, P_sinks = check_residuals(where, residuals, AttentionResiduals)
    dtype, (keys, kv_heads) = jnp.result_type(Q, K, V), K.shape[1:3]
    check_cotangent(where, dY, (*Q.shape[:3], V.shape[3]), dtype)
    options = given.check_options(where, Q.shape, scale, causal, window, softcap, dropout, alibi)
    i, j = jnp.arange(Q.shape[1]), jnp.arange(keys)
    Q_, K_, V_ = shared.grouped(Q, kv_heads), jnp.swapaxes(K, 1, 2), jnp.swapaxes(V, 1, 2)
    dY = shared.grouped(dY, kv_heads)

    dV = product("bgrts,bgrtn->bgsn", shared.dropped(P, key, i, j, options), dY)
    dP = shared.dropped(product("bgrtn,bgsn->bgrts", dY, V_), key, i, j, options)
    D = jnp.sum(P * dP, axis=-1, keepdims=True)
    dZ = jnp.where(P == 0, 0, P * (dP - D))  # a NaN in D stays with the keys that the query sees
    S = None if softcap is None else shared.scores(Q_, K_, options)
    dS = shared.through_softcap(dZ, S, options).astype(dtype)
    dQ = shared.ungrouped(options.scale * product("bgrts,bgsn->bgrtn", dS, K_))
    dK, dV = (jnp.swapaxes(d, 1, 2) for d in (options.scale * product("bgrts,bgrtn->bgsn", dS, Q_), dV))
    dbias = None
    if bias is not None:
        dB = shared.sum_to(dZ, shared.grouped_scores(bias, kv_heads))
        dbias = dB.reshape(bias.shape).astype(bias.dtype)
    dsinks = shared.sinks_factor(P_sinks, shared.ungrouped(D), sinks)
    return dQ.astype(Q.dtype), dK.astype(K.dtype), dV.astype(V.dtype), dbias, None, None, dsinks


attention = Rule(attention_forward, attention_backward)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """The slopes that ALiBi is published with: 2^(−8 h / heads), h = 1 … heads, for a power of two; else those of the
    next lower one, and every other slope of twice as many heads (Press et al., 2022)."""
    check_count("alibi_slopes", "heads", heads)
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return tuple(slopes + between[: heads - power])
