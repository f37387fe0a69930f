"""Scaled dot-product attention, tile by tile: P is never materialized (flash attention)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import check_cotangent, check_count, check_residuals
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.attention import _scores as shared
from handgrad.rules.attention._scores import product

__all__ = ["TiledAttentionResiduals", "tiled_attention", "tiled_attention_backward", "tiled_attention_forward"]


class TiledAttentionResiduals(NamedTuple):
    """The arguments and the output, by reference, and two numbers for each query: all of it linear in the tokens.

    Attributes:
      Q, K, V, bias, mask, key: the arguments.
      Y: output, since ⟨P, dP⟩ is ⟨Y, dY⟩.
      M: largest logit of each query, in at least float32; −∞ where it sees no key.
      total: Σ e^(z − M) over each query's logits, so that P = e^(Z − M 1ᵀ) / (total 1ᵀ). The log-sum-exp M + log total
        would be one number, but rounded to its own size: in a row of logits of −10⁹, all of total is lost.
    """

    Q: shared.Queries
    K: shared.Keys
    V: shared.Values
    bias: shared.Bias | None
    mask: shared.Mask | None
    key: shared.Key | None
    Y: Float[Array, "batch tokens heads n_v"]
    M: Float[Array, "batch kv_heads group tokens"]
    total: Float[Array, "batch kv_heads group tokens"]


class Tile(NamedTuple):
    """What one step of the scan reads."""

    K: Array
    V: Array
    bias: Array | None
    mask: Array | None
    columns: Int[Array, " tile"]


def tiled_attention_forward(
    Q: shared.Queries,
    K: shared.Keys,
    V: shared.Values,
    bias: shared.Bias | None = None,
    mask: shared.Mask | None = None,
    key: shared.Key | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    tile: int = 128,
) -> tuple[Float[Array, "batch tokens heads n_v"], TiledAttentionResiduals]:
    """Y = softmax(scale Q Kᵀ + B) V as attention_forward has it, `tile` keys at a time.

    Each query carries the largest logit so far, the sum of exponentials and the sum of values under it; a larger logit
    rescales both sums (online softmax). Arguments and options are attention_forward's, output and dropout the same up
    to rounding.

    Args:
      tile: how many keys at a time; their number need not be a multiple of it.
    Derivation: docs/derivations/attention/tiled_attention.md (Dao et al., 2022; Dao, 2023)
    """
    where = "tiled_attention_forward"
    shared.check_arguments(where, Q, K, V, bias, mask, key)
    options = shared.check_options(where, Q.shape[3], scale, causal, window, softcap, dropout)
    check_count(where, "tile", tile)
    dtype, (keys, kv_heads) = jnp.result_type(Q, K, V), K.shape[1:3]
    arguments, (Q, K, V) = (Q, K, V), shared.without_hidden(Q, K, V, mask)
    Q_ = shared.grouped(Q, kv_heads)

    def one_tile(carry: tuple[Array, Array, Array], of_tile: Tile) -> tuple[tuple[Array, Array, Array], None]:
        M, total, Y = carry
        K_j, V_j, B_j, seen_j, columns = of_tile
        Z = shared.logits(shared.scores(Q_, K_j, options), B_j, seen_j, columns, keys, options)
        largest = jnp.maximum(M, jnp.max(Z, axis=-1))
        shrink = shared.exponential(M, largest)
        E = shared.exponential(Z, largest[..., None])
        total = shrink * total + jnp.sum(E, axis=-1)
        E = shared.dropped(E, key, columns, options).astype(dtype)
        Y = shrink[..., None] * Y + product("bgrts,bsgn->bgrtn", E, V_j)
        return (largest, total, Y), None

    rows = (Q.shape[0], *Q_.shape[2:4], Q.shape[1])
    wide = accumulator(Q, K, V) if bias is None else accumulator(Q, K, V, bias)
    nothing_yet = jnp.full(rows, -jnp.inf, wide), jnp.zeros(rows, wide), jnp.zeros((*rows, V.shape[3]), wide)
    (M, total, Y), _ = meshes.scan(one_tile, nothing_yet, tiles(K, V, bias, mask, tile))
    Y = Y / jnp.where(total == 0, 1, total)[..., None]
    Y = jnp.moveaxis(Y, 3, 1).reshape(*Q.shape[:3], V.shape[3]).astype(dtype)
    return Y, TiledAttentionResiduals(*arguments, bias, mask, key, Y, M, total)


def tiled_attention_backward(
    residuals: TiledAttentionResiduals,
    dY: Float[Array, "batch tokens heads n_v"],
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    tile: int = 128,
) -> tuple[shared.Queries, shared.Keys, shared.Values, shared.Bias | None, None, None]:
    """Pull dY back through Y = softmax(scale Q Kᵀ + B) V, `tile` keys at a time.

        P = e^(Z − M 1ᵀ) / (total 1ᵀ)      dP = dY Vᵀ      dB = dS = P ∘ (dP − D 1ᵀ)      D = (dY ∘ Y) 1
        dV = Pᵀ dY      dQ = scale dS K      dK = scale dSᵀ Q

    Each tile of keys recomputes its own columns of P, hence its own rows of dK and dV; dQ adds up over the tiles.
    Dropout and softcap are as in attention_backward. `tile` may differ from the forward's.

    Derivation: docs/derivations/attention/tiled_attention.md
    """
    where = "tiled_attention_backward"
    Q, K, V, bias, mask, key, Y, M, total = check_residuals(where, residuals, TiledAttentionResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    Q, K, V = shared.without_hidden(Q, K, V, mask)
    options = shared.check_options(where, Q.shape[3], scale, causal, window, softcap, dropout)
    check_count(where, "tile", tile)
    dtype, (keys, kv_heads) = Y.dtype, K.shape[1:3]
    Q_, dY = shared.grouped(Q, kv_heads), shared.grouped(dY, kv_heads)
    D = product("btgrn,btgrn->bgrt", dY, shared.grouped(Y, kv_heads))[..., None]

    def one_tile(dQ: Array, of_tile: Tile) -> tuple[Array, tuple[Array, Array, Array | None]]:
        K_j, V_j, B_j, seen_j, columns = of_tile
        S = shared.scores(Q_, K_j, options)
        E = shared.exponential(shared.logits(S, B_j, seen_j, columns, keys, options), M[..., None])
        P = shared.normalized(E, total[..., None])
        dV = product("bgrts,btgrn->bsgn", shared.dropped(P, key, columns, options).astype(dtype), dY)
        dP = shared.dropped(product("btgrn,bsgn->bgrts", dY, V_j), key, columns, options)
        dZ = jnp.where(P == 0, 0, P * (dP - D))
        dS = shared.through_softcap(dZ, S, options).astype(dtype)
        dQ = dQ + options.scale * product("bgrts,bsgn->btgrn", dS, K_j)
        dK = options.scale * product("bgrts,btgrn->bsgn", dS, Q_)
        return dQ, (dK, dV, None if bias is None else shared.sum_to(dZ, bias))

    of_tiles = tiles(K, V, bias, mask, tile)
    dQ, (dK, dV, dB) = meshes.scan(one_tile, jnp.zeros(Q_.shape, accumulator(Q, K, V)), of_tiles)
    dK, dV = (joined(d, 1, keys).astype(A.dtype) for d, A in ((dK, K), (dV, V)))
    dbias = None if bias is None or dB is None else joined(dB, 3, keys).astype(bias.dtype)
    return dQ.reshape(Q.shape).astype(Q.dtype), dK, dV, dbias, None, None


tiled_attention = Rule(tiled_attention_forward, tiled_attention_backward)


def tiles(K: Array, V: Array, bias: Array | None, mask: Array | None, tile: int) -> Tile:
    """The tiles that lax.scan runs over, along a new first axis."""
    keys, kv_heads = K.shape[1:3]
    tile = min(tile, keys)
    count = -(-keys // tile)
    B, seen = (None if A is None else cut(shared.grouped_scores(A, kv_heads), 4, count, tile) for A in (bias, mask))
    columns = jnp.arange(count * tile).reshape(count, tile)
    return Tile(cut(K, 1, count, tile), cut(V, 1, count, tile), B, seen, columns)


def cut(A: Array, axis: int, count: int, tile: int) -> Array:
    """A with its axis of keys cut into tiles, which come first; zeros pad the last one."""
    missing = count * tile - A.shape[axis]
    A = jnp.pad(A, [(0, missing if i == axis else 0) for i in range(A.ndim)])
    return jnp.moveaxis(A.reshape(*A.shape[:axis], count, tile, *A.shape[axis + 1 :]), axis, 0)


def joined(A: Array, axis: int, keys: int) -> Array:
    """Tiles side by side again, without the padding of the last one."""
    count, tile = A.shape[0], A.shape[axis + 1]
    A = jnp.moveaxis(A, 0, axis)
    A = A.reshape(*A.shape[:axis], count * tile, *A.shape[axis + 2 :])
    return jax.lax.slice_in_dim(A, 0, keys, axis=axis)
