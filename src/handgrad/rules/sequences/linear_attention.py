"""Linear attention with decays: a recurrence of matrices over time, computed a chunk of tokens at a time."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import PerExample
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._blocks import (
    Chunks,
    Decays,
    State,
    States,
    carried,
    chunk_of,
    decayed,
    decays,
    in_blocks,
    in_chunks,
    in_order,
    is_of_heads,
    neighbors,
    of_neighbors,
    of_triangle,
    over,
    plus,
    product,
    triangle,
)
from handgrad.rules.sequences._recurrence import check_pair

__all__ = ["LinearAttentionResiduals", "linear_attention", "linear_attention_backward", "linear_attention_forward"]

Keys = Float[Array, "batch tokens heads n"]
Values = Float[Array, "batch tokens heads n_v"]
Decay = Float[Array, "batch tokens heads n_or_1"]
Bonus = Float[Array, "heads n"]


class LinearAttentionResiduals(NamedTuple):
    """The arguments, by reference, and the state that each chunk starts from.

    Attributes:
      Q, K, V, log_decay, bonus: the arguments.
      S0: says whether there is a dS0, and in which dtype.
      S: states at the chunks' boundaries, in float32 at least. Those in between are never made.
    """

    Q: Keys
    K: Keys
    V: Values
    log_decay: Decay | None
    bonus: Bonus | None
    S0: State | None
    S: States


def linear_attention_forward(
    Q: Keys,
    K: Keys,
    V: Values,
    log_decay: Decay | None = None,
    bonus: Bonus | None = None,
    S0: State | None = None,
    *,
    chunk: int | None = None,
) -> tuple[tuple[Values, State], LinearAttentionResiduals]:
    """S_t = a_t ∘ S_{t−1} + k_t v_tᵀ,  y_t = S_tᵀ q_t, for each example and head; with a bonus u,
    y_t = (S_{t−1} + u ∘ k_t v_tᵀ)ᵀ q_t.

    Returns (Y, S_last). The state is in float32 at least, whatever the dtype of the others.

    Args:
      log_decay: log a_t, which must not be above 0, so that nothing overflows; −∞ forgets all. A number for each head
        (last axis 1: retention, state space duality) or one for each feature of the keys (n: gated linear attention);
        None is no decay.
      bonus: u, the weight of the current token, a parameter for each feature of the keys (RWKV). The state that is read
        is then that before the token, and the token's own decay takes effect behind it.
      S0: the state before the first token, S_last of an earlier call, say; None is zeros.
      chunk: how many tokens at a time, a power of two: inside a chunk everything is a product of matrices, and states
        are kept between chunks alone. 1 is the recurrence itself; None is a size that is fast.
    Derivation: docs/derivations/sequences/linear_attention.md (Katharopoulos et al. 2020; Yang et al. 2024)
    """
    where = "linear_attention_forward"
    _check_arguments(where, Q, K, V, log_decay, bonus, S0)
    chunk = chunk_of(where, chunk, Q.shape[1], Q.shape[3], V.shape[3], _is_of_features(log_decay))
    q, k, v, u, levels = _prepared(chunk, Q, K, V, log_decay, bonus, S0)

    y = jnp.sum(q * u * k, axis=-1, keepdims=True) * v
    if is_of_heads(levels):
        y = y + product("ij,jv->iv", product("in,jn->ij", q, k) * triangle(levels), v)
    else:
        for of_block in levels[:-1]:
            q_, k_, v0 = decayed(of_block, q, k, v)
            y = plus(y, second=product("ij,jv->iv", product("in,jn->ij", q_, k_), v0))
    F, G, total = (A[:, :, :, 0] for A in levels[-1])
    S, S_last = carried(S0, total, product("in,iv->nv", k * jnp.exp(G), v))
    y = y + product("in,nv->iv", q * jnp.exp(F), S)
    Y = in_order(y, Q.shape[1]).astype(jnp.result_type(Q, K, V))
    return (Y, S_last), LinearAttentionResiduals(Q, K, V, log_decay, bonus, S0, S)


def linear_attention_backward(
    residuals: LinearAttentionResiduals, dY: tuple[Values, State], *, chunk: int | None = None
) -> tuple[Keys, Keys, Values, Decay | None, PerExample | None, State | None]:
    """Pull (dY, dS_last) back through S_t = a_t ∘ S_{t−1} + k_t v_tᵀ, y_t = S_tᵀ q_t.

        δ_t = q_t dy_tᵀ + a_{t+1} ∘ δ_{t+1}      dq_t = S_t dy_t      dk_t = δ_t v_t      dv_t = δ_tᵀ k_t
        d log a_t = (a_t ∘ S_{t−1} ∘ δ_t) 1 = Σ_{s ≥ t} (q_s ∘ dq_s − k_s ∘ dk_s) + (S_last ∘ dS_last) 1

    chunk by chunk, and block by block; d log a in a form without the difference.

    Derivation: docs/derivations/sequences/linear_attention.md
    """
    where = "linear_attention_backward"
    Q, K, V, log_decay, bonus, S0, S = check_residuals(where, residuals, LinearAttentionResiduals)
    check_pair(where, "dY", dY, "(dY, dS_last)")
    check_cotangent(where, dY[0], V.shape, jnp.result_type(Q, K, V))
    check_cotangent(where, dY[1], S.shape[1:], S.dtype, "dS_last", "S_last")
    tokens = Q.shape[1]
    chunk = chunk_of(where, chunk, tokens, Q.shape[3], V.shape[3], _is_of_features(log_decay), S)
    q, k, v, u, levels = _prepared(chunk, Q, K, V, log_decay, bonus, S0)
    dy = in_chunks(dY[0], chunk, S.dtype)

    dq, dk, dv, d, dS0 = _through_chunks(q, k, v, S, levels[-1], dy, dY[1])
    if is_of_heads(levels):
        dq, dk, dv, d = _through_triangle(q, k, v, levels, dy, dq, dk, dv, d)
    else:
        for of_block in levels[-2::-1]:
            dq, dk, dv, d = _through_neighbors(q, k, v, of_block, dy, dq, dk, dv, d)
    vdy, qk = jnp.sum(v * dy, axis=-1, keepdims=True), jnp.sum(q * u * k, axis=-1, keepdims=True)
    dq, dk, dv = dq + vdy * u * k, dk + vdy * u * q, dv + qk * dy

    dQ, dK, dV = (in_order(A, tokens).astype(B.dtype) for A, B in ((dq, Q), (dk, K), (dv, V)))
    dlog_decay = dbonus = None
    if log_decay is not None:
        of_steps = (d.total if bonus is not None else d.F + d.total)[:, :, :, :, 0]
        dlog_decay = in_order(of_steps, tokens).astype(log_decay.dtype)
    if bonus is not None:
        dbonus = PerExample(jnp.sum(vdy * q * k, axis=(0, 3)), bonus.dtype)
    return dQ, dK, dV, dlog_decay, dbonus, None if S0 is None else dS0.astype(S0.dtype)


linear_attention = Rule(linear_attention_forward, linear_attention_backward)


def _through_chunks(
    q: Chunks, k: Chunks, v: Chunks, S: States, of_chunk: Decays, dy: Chunks, dS_last: State
) -> tuple[Chunks, Chunks, Chunks, Decays, State]:
    """The cotangents through y = (q ∘ e^F) S and S′ = e^total ∘ S + (k ∘ e^G)ᵀ v, in the reverse order of chunks."""
    F, G, total = (A[:, :, :, 0] for A in of_chunk)
    q_, k_ = q * jnp.exp(F), k * jnp.exp(G)
    D, dS0 = carried(dS_last, total, product("in,iv->nv", q_, dy), reverse=True)  # D of S′
    dq_, dk_, dv = product("iv,nv->in", dy, S), product("iv,nv->in", v, D), product("in,nv->iv", k_, D)
    SD = jnp.expand_dims(jnp.sum(S * D, axis=-1), 3) * jnp.exp(total)
    d = Decays(*(in_blocks(over(A, F), A.shape[3]) for A in (q_ * dq_, k_ * dk_, SD)))
    return dq_ * jnp.exp(F), dk_ * jnp.exp(G), dv, d, dS0


def _through_neighbors(
    q: Chunks, k: Chunks, v: Chunks, of_block: Decays, dy: Chunks, dq: Chunks, dk: Chunks, dv: Chunks, d: Decays
) -> tuple[Chunks, Chunks, Chunks, Decays]:
    """The cotangents so far, plus those through y₁ = (q₁ ∘ e^F₁) (k₀ ∘ e^G₀)ᵀ v₀ of two blocks side by side."""
    q_, k_, v0 = decayed(of_block, q, k, v)
    dy1, F1, G0 = neighbors(in_blocks(dy, q_.shape[4]))[1], neighbors(of_block.F)[1], neighbors(of_block.G)[0]
    P, dP = product("in,jn->ij", q_, k_), product("iv,jv->ij", dy1, v0)
    dq_, dk_ = product("ij,jn->in", dP, k_), product("ij,in->jn", dP, q_)
    dq, dk = plus(dq, second=dq_ * jnp.exp(F1)), plus(dk, first=dk_ * jnp.exp(G0))
    dv = plus(dv, first=product("ij,iv->jv", P, dy1))
    return dq, dk, dv, of_neighbors(d, over(q_ * dq_, F1), over(k_ * dk_, G0))


def _through_triangle(
    q: Chunks, k: Chunks, v: Chunks, levels: list[Decays], dy: Chunks, dq: Chunks, dk: Chunks, dv: Chunks, d: Decays
) -> tuple[Chunks, Chunks, Chunks, Decays]:
    """The cotangents so far, plus those through y = (q kᵀ ∘ W) v, W the decays between a chunk's tokens."""
    W, S = triangle(levels), product("in,jn->ij", q, k)
    dS = product("iv,jv->ij", dy, v) * W
    dq, dk = dq + product("ij,jn->in", dS, k), dk + product("ij,in->jn", dS, q)
    return dq, dk, dv + product("ij,iv->jv", S * W, dy), of_triangle(d, S * dS)


def _is_of_features(log_decay: Decay | None) -> bool:
    """Whether each feature of the keys has its own decay."""
    return log_decay is not None and log_decay.shape[3] > 1


def _prepared(
    chunk: int, Q: Keys, K: Keys, V: Values, log_decay: Decay | None, bonus: Bonus | None, S0: State | None
) -> tuple[Chunks, Chunks, Chunks, Array, list[Decays]]:
    """Queries, keys and values in chunks, the weight of a token for itself, and the decays at all levels."""
    wide = accumulator(*(A for A in (Q, K, V, log_decay, bonus, S0) if A is not None))
    q, k, v = (in_chunks(A, chunk, wide) for A in (Q, K, V))
    steps = jnp.zeros((1, 1, 1, chunk, 1), wide) if log_decay is None else in_chunks(log_decay, chunk, wide)
    u = jnp.ones((Q.shape[2], 1), wide) if bonus is None else bonus.astype(wide)
    return q, k, v, jnp.expand_dims(u, (0, 1, 3)), decays(steps, reads_before=bonus is not None)


def _check_arguments(
    where: str, Q: Keys, K: Keys, V: Values, log_decay: Decay | None, bonus: Bonus | None, S0: State | None
) -> None:
    """All shapes fit Q's and V's."""
    for name, A in (("Q", Q), ("K", K), ("V", V)):
        check_array(where, name, A)
        if len(A.shape) != 4:
            raise InputError(f"{where}: {name} must have shape (batch, tokens, heads, features), got {describe(A)}")
    batch, tokens, heads, n = Q.shape
    if 0 in Q.shape[1:]:
        raise InputError(f"{where}: Q must have at least one token, head and feature, got {describe(Q)}")
    check_shape(where, "K", K, Q.shape, "like Q")
    check_shape(where, "V", V, (batch, tokens, heads, V.shape[3]), f"to meet Q {tuple(Q.shape)}")
    if log_decay is not None:
        check_array(where, "log_decay", log_decay)
        if tuple(log_decay.shape) not in ((batch, tokens, heads, n), (batch, tokens, heads, 1)):
            raise InputError(
                f"{where}: log_decay must have shape {(batch, tokens, heads, n)}, of which the last may be 1, "
                f"got {describe(log_decay)}"
            )
    if bonus is not None:
        check_array(where, "bonus", bonus)
        check_shape(where, "bonus", bonus, (heads, n), "(heads, n)")
    if S0 is not None:
        check_array(where, "S0", S0)
        check_shape(where, "S0", S0, (batch, heads, n, V.shape[3]), "(one state for each example and head)")
