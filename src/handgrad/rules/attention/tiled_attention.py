"""Scaled dot-product attention, tile by tile: P is never materialized (flash attention)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import check_cotangent, check_count, check_residuals
from handgrad.factors import Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.attention import _arguments as given, _scores as shared
from handgrad.rules.attention._scores import product
from handgrad.rules.attention._tiles import Place, Tiles, tile_size

__all__ = ["TiledAttentionResiduals", "tiled_attention", "tiled_attention_backward", "tiled_attention_forward"]


class TiledAttentionResiduals(NamedTuple):
    """The arguments and the output, by reference, and two numbers for each query: all of it linear in the tokens.

    Attributes:
      Q, K, V, bias, mask, key, sinks: the arguments.
      Y: output, since ⟨P, dP⟩ is ⟨Y, dY⟩.
      M: largest logit of each query, in at least float32; −∞ where it sees no key and has no sink.
      total: Σ e^(z − M) over each query's logits, its sink's included, so that P = e^(Z − M 1ᵀ) / (total 1ᵀ). The
        log-sum-exp M + log total would be one number, but rounded to its own size: in a row of logits of −10⁹, all of
        total is lost.
    """

    Q: given.Queries
    K: given.Keys
    V: given.Values
    bias: given.Bias | None
    mask: given.Mask | None
    key: given.Key | None
    sinks: given.Sinks | None
    Y: Float[Array, "batch tokens heads n_v"]
    M: given.OfQueries
    total: given.OfQueries


def tiled_attention_forward(
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
    tile: int | None = None,
) -> tuple[Float[Array, "batch tokens heads n_v"], TiledAttentionResiduals]:
    """Y = softmax(scale Q Kᵀ + B) V as attention_forward has it, `tile` queries and keys at a time.

    Each query carries the largest logit so far, the sum of exponentials and the sum of values under it; a larger logit
    rescales both sums (online softmax). Tiles that `causal`, the window or a mask in NumPy hide altogether are left
    out. Arguments and options are attention_forward's, output and dropout the same up to rounding.

    Args:
      tile: how many queries, and how many keys, at a time at most; None is a size that is fast.
    Derivation: docs/derivations/attention/tiled_attention.md (Dao et al., 2022; Dao, 2023)
    """
    where = "tiled_attention_forward"
    given.check_arguments(where, Q, K, V, bias, mask, key, sinks)
    options = given.check_options(where, Q.shape, scale, causal, window, softcap, dropout, alibi)
    tiles, dtype = tiles_of(where, Q, K, tile), jnp.result_type(Q, K, V)
    wide = accumulator(Q, K, V) if bias is None else accumulator(Q, K, V, bias)
    (Q_, K_, V_), B, seen = grouped(tiles, Q, K, V, bias, mask)

    def one_tile(carry: tuple[Array, Array, Array], at: Place) -> tuple[tuple[Array, Array, Array], None]:
        M, total, Y = (tiles.rows(A, at) for A in carry)
        Z = tiles.logits(shared.scores(tiles.rows(Q_, at), tiles.columns(K_, at), options), B, seen, at, options)
        largest = jnp.maximum(M, jnp.max(Z, axis=-1, keepdims=True))
        shrink, E = shared.exponential(M, largest), shared.exponential(Z, largest)
        total = shrink * total + jnp.sum(E, axis=-1, keepdims=True)
        E = shared.dropped(E, key, *tiles.numbers(at), options).astype(dtype)
        Y = shrink * Y + product("bgrts,bgsn->bgrtn", E, tiles.columns(V_, at))
        M, total, Y = (tiles.with_rows(A, rows, at) for A, rows in zip(carry, (largest, total, Y), strict=True))
        return (M, total, Y), None

    sink, zero = shared.sink_logits(Q_, sinks, wide), jnp.full_like(Q_[..., :1], 0, dtype=wide)
    only_sinks = sink, shared.exponential(sink, sink), jnp.broadcast_to(zero, (*zero.shape[:-1], V.shape[3]))
    (M, total, Y), _ = meshes.scan(one_tile, only_sinks, tiles.visible(options, mask))
    Y = tiles.to_queries(Y / jnp.where(total == 0, 1, total)).astype(dtype)
    return Y, TiledAttentionResiduals(Q, K, V, bias, mask, key, sinks, Y, *(tiles.to_queries(A) for A in (M, total)))


def tiled_attention_backward(
    residuals: TiledAttentionResiduals,
    dY: Float[Array, "batch tokens heads n_v"],
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    alibi: Sequence[float] | None = None,
    tile: int | None = None,
) -> tuple[given.Queries, given.Keys, given.Values, given.Bias | None, None, None, Total | None]:
    """Pull dY back through Y = softmax(scale Q Kᵀ + B) V, `tile` queries and keys at a time.

        P = e^(Z − M 1ᵀ) / (total 1ᵀ)      dP = dY Vᵀ      dB = dS = P ∘ (dP − D 1ᵀ)      D = (dY ∘ Y) 1
        dV = Pᵀ dY      dQ = scale dS K      dK = scale dSᵀ Q

    Each tile recomputes its own part of P; dQ adds up over a row of tiles, dK and dV over a column. Dropout and softcap
    are as in attention_backward. `tile` may differ from the forward's.

    Derivation: docs/derivations/attention/tiled_attention.md
    """
    where = "tiled_attention_backward"
    Q, K, V, bias, mask, key, sinks, Y, M, total = check_residuals(where, residuals, TiledAttentionResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    options = given.check_options(where, Q.shape, scale, causal, window, softcap, dropout, alibi)
    tiles, dtype = tiles_of(where, Q, K, tile), Y.dtype
    (Q_, K_, V_), B, seen = grouped(tiles, Q, K, V, bias, mask)
    D = jnp.sum(dY.astype(accumulator(Y)) * Y, axis=-1, keepdims=True)
    of_queries = Q_, *(tiles.of_queries(A, K.shape[2]) for A in (dY, M, total, D))

    def one_tile(carry: Sums, at: Place) -> tuple[Sums, None]:
        (Q_i, dY_i, M_i, total_i, D_i), (K_j, V_j) = (
            (tiles.rows(A, at) for A in of_queries),
            (tiles.columns(A, at) for A in (K_, V_)),
        )
        S = shared.scores(Q_i, K_j, options)
        Z, numbers = tiles.logits(S, B, seen, at, options), tiles.numbers(at)
        P = shared.normalized(shared.exponential(Z, M_i), Z, total_i)
        P = jax.lax.optimization_barrier(P)  # or XLA would materialize the exponentials and compute P twice
        dV = product("bgrts,bgrtn->bgsn", shared.dropped(P, key, *numbers, options).astype(dtype), dY_i)
        dP = shared.dropped(product("bgrtn,bgsn->bgrts", dY_i, V_j), key, *numbers, options)
        dZ = jnp.where(P == 0, 0, P * (dP - D_i))
        dS = shared.through_softcap(dZ, S, options).astype(dtype)
        dQ, dK = product("bgrts,bgsn->bgrtn", dS, K_j), product("bgrts,bgrtn->bgsn", dS, Q_i)
        return Sums(
            tiles.plus_rows(carry.Q, dQ, at),
            tiles.plus_columns(carry.K, dK, at),
            tiles.plus_columns(carry.V, dV, at),
            None if carry.B is None or B is None else tiles.plus_block(carry.B, shared.sum_to(dZ, B), at),
        ), None

    zeros = [jnp.zeros_like(A, accumulator(Q, K, V)) for A in (Q_, K_, V_)]
    nothing_yet = Sums(*zeros, B=None if B is None else jnp.zeros_like(B, accumulator(Q, K, V, B)))
    (dQ, dK, dV, dB), _ = meshes.scan(one_tile, nothing_yet, tiles.visible(options, mask))
    dQ = tiles.to_queries(options.scale * dQ).astype(Q.dtype)
    dK, dV = tiles.to_keys(options.scale * dK).astype(K.dtype), tiles.to_keys(dV).astype(V.dtype)
    dbias = None if bias is None or dB is None else tiles.to_scores(dB, bias.shape[1]).astype(bias.dtype)
    sink = tiles.to_queries(shared.sink_logits(Q_, sinks, M.dtype))
    P_sinks = shared.normalized(shared.exponential(sink, M), sink, total)
    return dQ, dK, dV, dbias, None, None, shared.sinks_factor(P_sinks, D, sinks)


tiled_attention = Rule(tiled_attention_forward, tiled_attention_backward)


class Sums(NamedTuple):
    """The cotangents of queries, keys, values and bias, as they add up."""

    Q: shared.GroupedQueries
    K: shared.GroupedKeys
    V: shared.GroupedKeys
    B: shared.GroupedBias | None


def tiles_of(where: str, Q: Array, K: Array, tile: int | None) -> Tiles:
    """The tiles of the scores of Q and K."""
    tokens, keys = Q.shape[1], K.shape[1]
    tile = tile_size(tokens, keys) if tile is None else tile
    check_count(where, "tile", tile)
    return Tiles.of(tokens, keys, tile)


def grouped(
    tiles: Tiles, Q: Array, K: Array, V: Array, bias: Array | None, mask: Array | None
) -> tuple[tuple[Array, Array, Array], Array | None, Array | None]:
    """The arguments in groups of heads, padded to whole tiles."""
    Q, K, V = shared.without_hidden(Q, K, V, mask)
    B, seen = (tiles.of_scores(A, K.shape[2]) for A in (bias, mask))
    return (tiles.of_queries(Q, K.shape[2]), tiles.of_keys(K), tiles.of_keys(V)), B, seen
