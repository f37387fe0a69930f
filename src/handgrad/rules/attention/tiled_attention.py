"""Scaled dot-product attention, tile by tile: no array of one number for each query and key ever stands in memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_cotangent, check_count, check_residuals
from handgrad.factors.base import accumulator
from handgrad.rules.attention import _scores as shared
from handgrad.rules.attention._scores import product
from handgrad.rules.rule import Rule

__all__ = [
    "TiledAttentionResiduals",
    "tiled_attention",
    "tiled_attention_backward",
    "tiled_attention_forward",
]

Array = jax.Array


class TiledAttentionResiduals(NamedTuple):
    """The arguments and the output, by reference, and two numbers for each query: all of it linear in the tokens.

    Attributes:
      Q: (batch, tokens, heads, n) queries.
      K: (batch, keys, kv_heads, n) keys.
      V: (batch, keys, kv_heads, n_v) values.
      bias: as it came, or None.
      mask: as it came, or None.
      key: the random key or None.
      Y: (batch, tokens, heads, n_v) output: ⟨P, dP⟩ is ⟨Y, dY⟩.
      M: (batch, kv_heads, heads / kv_heads, tokens) largest of each query's logits, in at least float32; −∞ where it
        sees no key.
      total: like M, Σ e^(z − M) over each query's logits, so that P = e^(Z − M 1ᵀ) / (total 1ᵀ). Their log-sum-exp
        M + log total would be one number, but rounded to its own size: at a row of logits of −10⁹, all of total is
        lost.
    """

    Q: Array
    K: Array
    V: Array
    bias: Array | None
    mask: Array | None
    key: Array | None
    Y: Array
    M: Array
    total: Array


def tiled_attention_forward(
    Q: Array,
    K: Array,
    V: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    key: Array | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    tile: int = 128,
) -> tuple[Array, TiledAttentionResiduals]:
    """Y = softmax(scale Q Kᵀ + B) V as attention_forward has it, `tile` keys at a time.

    Each query carries the largest logit so far, the sum of exponentials and the sum of values under it; a larger logit
    shrinks both sums. Same arguments, same output to rounding, the same dropout from the same key.

    Args:
      Q: (batch, tokens, heads, n) floating point.
      K: (batch, keys, kv_heads, n); kv_heads divides heads.
      V: (batch, keys, kv_heads, n_v).
      bias: (batch, heads, tokens, keys) floating point, or None; each of the first three axes may be 1.
      mask: booleans, likewise: True where the query may see the key; padding as for attention_forward.
      key: random key for dropout; None drops nothing.
      scale, causal, window, softcap, dropout: as attention_forward.
      tile: how many keys at a time; the keys need not be a multiple of it.
    Returns:
      Y (batch, tokens, heads, n_v) in the promoted dtype of Q, K and V; residuals.
    Raises:
      InputError: a wrong shape, dtype or option; no token or no key.
    Derivation: docs/derivations/attention/tiled_attention.md (Dao et al., 2022; Dao, 2023)
    """
    where = "tiled_attention_forward"
    shared.check_arguments(where, Q, K, V, bias, mask, key)
    options = shared.check_options(where, Q.shape[3], scale, causal, window, softcap, dropout)
    check_count(where, "tile", tile)
    dtype, (keys, kv_heads) = jnp.result_type(Q, K, V), K.shape[1:3]
    arguments, (Q, K, V) = (Q, K, V), shared.without_hidden(Q, K, V, mask)
    Q_ = shared.grouped(Q, kv_heads)

    def one_tile(carry: Any, of_tile: Any) -> tuple[Any, None]:
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
    dY: Array,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    tile: int = 128,
) -> tuple[Array, Array, Array, Array | None, None, None]:
    """Pull dY back through Y = softmax(scale Q Kᵀ + B) V, `tile` keys at a time.

        P = e^(Z − M 1ᵀ) / (total 1ᵀ)      dP = dY Vᵀ      dB = dS = P ∘ (dP − D 1ᵀ)      D = (dY ∘ Y) 1
        dV = Pᵀ dY      dQ = scale dS K      dK = scale dSᵀ Q

    Each tile of keys makes its own columns of P again, hence its own rows of dK and dV; dQ adds up over the tiles.
    Dropout and softcap enter as in attention_backward.

    Args:
      residuals: TiledAttentionResiduals of tiled_attention_forward.
      dY: (batch, tokens, heads, n_v) cotangent of Y.
      scale, causal, window, softcap, dropout, tile: the forward's; tile may be another.
    Returns:
      dQ like Q; dK like K; dV like V; dbias like bias, or None where there was none; None for mask and key.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
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

    def one_tile(dQ: Array, of_tile: Any) -> tuple[Array, Any]:
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
    dbias = None if bias is None else joined(dB, 3, keys).astype(bias.dtype)
    return dQ.reshape(Q.shape).astype(Q.dtype), dK, dV, dbias, None, None


tiled_attention = Rule(tiled_attention_forward, tiled_attention_backward)


def tiles(K: Array, V: Array, bias: Array | None, mask: Array | None, tile: int) -> Any:
    """What lax.scan goes over: each tile's keys, values, columns of bias and mask, and numbers of keys."""
    keys, kv_heads = K.shape[1:3]
    tile = min(tile, keys)
    count = -(-keys // tile)
    B, seen = shared.grouped_scores(bias, kv_heads), shared.grouped_scores(mask, kv_heads)
    columns = jnp.arange(count * tile).reshape(count, tile)
    return *(cut(A, axis, count, tile) for A, axis in ((K, 1), (V, 1), (B, 4), (seen, 4))), columns


def cut(A: Array | None, axis: int, count: int, tile: int) -> Array | None:
    """A with its axis of keys cut into tiles, which come first; zeros fill up the last one."""
    if A is None:
        return None
    missing = count * tile - A.shape[axis]
    A = jnp.pad(A, [(0, missing if i == axis else 0) for i in range(A.ndim)])
    return jnp.moveaxis(A.reshape(*A.shape[:axis], count, tile, *A.shape[axis + 1 :]), axis, 0)


def joined(A: Array, axis: int, keys: int) -> Array:
    """Tiles side by side again, without what filled up the last one."""
    count, tile = A.shape[0], A.shape[axis + 1]
    A = jnp.moveaxis(A, 0, axis)
    A = A.reshape(*A.shape[:axis], count * tile, *A.shape[axis + 2 :])
    return jax.lax.slice_in_dim(A, 0, keys, axis=axis)
