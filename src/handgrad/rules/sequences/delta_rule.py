"""The (gated) delta rule: a state that is corrected, step by step, by its errors of prediction; computed in chunks."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._chunks import Chunks, decays, decays_back, unit_lower_inverse
from handgrad.rules.sequences._recurrence import check_pair

__all__ = ["DeltaRuleResiduals", "delta_rule", "delta_rule_backward", "delta_rule_forward"]

Keys = Float[Array, "batch time heads n_k"]
Values = Float[Array, "batch time heads n_v"]
Numbers = Float[Array, "batch time heads"]
State = Float[Array, "batch heads n_k n_v"]
Piece = tuple[Array, Array, Array, Array | None]  # QK, V, beta and the log decay of a chunk, heads before steps
Cotangents = tuple[Array, Array, Array, Array, Array | None]  # of Q, K, V, beta and the log decay

CHUNK = 64  # steps, unless told otherwise: few chunks, yet the work inside one grows with its square


class DeltaRuleResiduals(NamedTuple):
    """The arguments, by reference, and a state for each chunk, from which the states inside it are recomputed.

    Attributes:
      Q, K, V, beta, log_decay: the arguments.
      S0: says whether there is a dS0, and its dtype.
      states: the state before each chunk, in float32 at least.
    """

    Q: Keys
    K: Keys
    V: Values
    beta: Numbers
    log_decay: Numbers | None
    S0: State | None
    states: Float[Array, "chunks batch heads n_k n_v"]


def delta_rule_forward(
    Q: Keys,
    K: Keys,
    V: Values,
    beta: Numbers,
    log_decay: Numbers | None = None,
    S0: State | None = None,
    *,
    chunk: int | None = None,
) -> tuple[tuple[Values, State], DeltaRuleResiduals]:
    """S_t = a_t (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ and y_t = S_tᵀ q_t, for each head.

    Returns (Y, S_T); the state is in float32 at least, whatever the dtype of the others.

    Each step writes k_t u_tᵀ with u_t = β_t (v_t − v̂_t), v̂_t = a_t S_{t−1}ᵀ k_t being what the state predicts for the
    key. In a chunk of C steps after the state S, with E_t the decay since it began and D_ts that from step s to t,

        V̂ = E ∘ K S + N U      N = tril(D ∘ K Kᵀ, −1)      U = β ∘ (V − V̂)
        Y = E ∘ Q S + P U      P = tril(D ∘ Q Kᵀ)

    so that V − V̂ = T (V − E ∘ K S) with T = (I + N diag β)⁻¹, the inverse of a triangle (WY representation).

    Args:
      beta: how much of an error is corrected, in 0 … 1 for unit keys, or up to 2.
      log_decay: log a_t ≤ 0, a number for each head (gated delta rule); −∞ forgets all. None is no decay, a_t = 1.
      S0: the state before the first step; None is zeros.
      chunk: steps of a chunk at most; 1 is the recurrence, one step after the other. None is a size that is fast.
    Derivation: docs/derivations/sequences/delta_rule.md (Yang et al. 2024; Yang, Kautz and Hatamizadeh 2024)
    """
    where = "delta_rule_forward"
    _check_arguments(where, Q, K, V, beta, log_decay, S0)
    dtype, sums = jnp.result_type(Q, K, V, beta), _sums(Q, K, V, beta, log_decay, S0)
    chunks = Chunks.of(where, Q.shape[1], CHUNK if chunk is None else chunk)
    C = chunks.size

    def one_chunk(S: State, piece: Piece) -> tuple[State, tuple[Array, State]]:
        of = _opened(S, piece)
        U = of.beta * of.errors
        Y = of.from_state[..., :C, :] + _product("ts,sj->tj", of.scores[..., :C, :], U)
        after = of.decay.whole * S + _product("si,sj->ij", of.decay.to_end * of.reads[..., C:, :], U)
        return after, (Y.astype(dtype), S)

    S = jnp.zeros((len(K), *K.shape[2:], V.shape[3]), sums) if S0 is None else S0.astype(sums)
    S, (Y, states) = meshes.scan(one_chunk, S, _pieces(chunks, Q, K, V, beta, log_decay))
    return (chunks.to_heads(Y), S), DeltaRuleResiduals(Q, K, V, beta, log_decay, S0, states)


def delta_rule_backward(
    residuals: DeltaRuleResiduals, dY: tuple[Values, State], *, chunk: int | None = None
) -> tuple[Keys, Keys, Values, Numbers, Numbers | None, State | None]:
    """Pull dY, the pair (dY, dS_T), back through the chunks, from the last to the first.

    With R = [Q; K], the rows that read the state, M = [P; N], and F the decay from a step to the chunk's end,

        dV = Tᵀ (β ∘ dU₀)      dU₀ = Pᵀ dY + F ∘ K dS      dU = dU₀ − Nᵀ dV      dβ = (dU ∘ (V − V̂)) 1
        dR = J K + E ∘ dO Sᵀ      dO = [dY; −dV]      dM = dO Uᵀ      J = D ∘ dM
        dK += Jᵀ R + F ∘ U dSᵀ      dS = E_C dS + (E ∘ R)ᵀ dO

    log a_r is part of every log D_ts with s < r ≤ t, whose cotangent is (dM ∘ M)_ts.

    Derivation: docs/derivations/sequences/delta_rule.md
    """
    where = "delta_rule_backward"
    Q, K, V, beta, log_decay, S0, states = check_residuals(where, residuals, DeltaRuleResiduals)
    check_pair(where, "dY", dY, "(dY, dS)")
    check_cotangent(where, dY[0], V.shape, jnp.result_type(Q, K, V, beta))
    check_cotangent(where, dY[1], states.shape[1:], states.dtype, "dS", "S")
    chunks = Chunks.of(where, Q.shape[1], CHUNK if chunk is None else chunk).of_states(where, states)
    C = chunks.size

    def one_chunk(dS: State, inputs: tuple[State, Piece, Array]) -> tuple[State, Cotangents]:
        S, piece, dY = inputs
        of, dY = _opened(S, piece), dY.astype(dS.dtype)
        K, U, decay = of.reads[..., C:, :], of.beta * of.errors, of.decay
        by_end = decay.to_end * _product("si,ij->sj", K, dS)
        dU0 = _product("ts,tj->sj", of.scores[..., :C, :], dY) + by_end
        dV = _product("ts,tj->sj", of.T, of.beta * dU0)
        dU = dU0 - _product("ts,tj->sj", of.scores[..., C:, :], dV)
        dO = jnp.concatenate([dY, -dV], axis=-2)
        dM = _product("tj,sj->ts", dO, U)
        J = decay.between * dM
        dR = _product("ts,si->ti", J, K) + decay.since * _product("tj,ij->ti", dO, S)
        dK = _product("ts,ti->si", J, of.reads) + decay.to_end * _product("sj,ij->si", U, dS)
        before = decay.whole * dS + _product("ti,tj->ij", decay.since * of.reads, dO)
        dlog = None if piece[3] is None else _decay_back(of, dO, dM, U * by_end, decay.whole * dS * S)
        return before, (dR[..., :C, :], dR[..., C:, :] + dK, dV, jnp.sum(dU * of.errors, axis=-1), dlog)

    inputs = states, _pieces(chunks, Q, K, V, beta, log_decay), chunks.of_heads(dY[0])
    dS0, (*found, dlog) = meshes.scan(one_chunk, dY[1], inputs, reverse=True)
    dQ, dK, dV, dbeta = (chunks.to_heads(d).astype(A.dtype) for d, A in zip(found, (Q, K, V, beta), strict=True))
    dlog_decay = None if log_decay is None or dlog is None else chunks.to_heads(dlog).astype(log_decay.dtype)
    return dQ, dK, dV, dbeta, dlog_decay, None if S0 is None else dS0.astype(S0.dtype)


delta_rule = Rule(delta_rule_forward, delta_rule_backward)


class _Decay(NamedTuple):
    """Inside a chunk; a row for each read, those of queries before those of keys. 1 where there is no decay.

    Attributes:
      since: E, since the chunk began.
      between: D, from the write s to the read t; 0 where t reads before s writes: a key reads before its own step.
      to_end: F, from a write to the chunk's end.
      whole: over the chunk.
    """

    since: Array | float
    between: Array
    to_end: Array | float
    whole: Array | float


class _Opened(NamedTuple):
    """What both passes compute of a chunk.

    Attributes:
      beta: (..., C, 1).
      reads: R = [Q; K].
      scores: M = [P; N] = D ∘ R Kᵀ.
      from_state: E ∘ R S.
      T: (I + N diag β)⁻¹.
      errors: V − V̂ = T (V − E ∘ K S).
    """

    decay: _Decay
    beta: Array
    reads: Array
    scores: Array
    from_state: Array
    T: Array
    errors: Array


def _opened(S: State, piece: Piece) -> _Opened:
    """A chunk after the state S."""
    (reads, V, beta), log_decay = (A.astype(S.dtype) for A in piece[:3]), piece[3]
    C, beta = V.shape[-2], jnp.expand_dims(beta, -1)
    decay = _decay(None if log_decay is None else log_decay.astype(S.dtype), C, S.dtype)
    scores = decay.between * _product("ti,si->ts", reads, reads[..., C:, :])
    from_state = decay.since * _product("ti,ij->tj", reads, S)
    T = unit_lower_inverse(scores[..., C:, :] * beta.mT)
    errors = _product("ts,sj->tj", T, V - from_state[..., C:, :])
    return _Opened(decay, beta, reads, scores, from_state, T, errors)


def _decay(log_decay: Array | None, C: int, dtype: np.dtype) -> _Decay:
    seen = np.concatenate([np.tri(C), np.tri(C, k=-1)]).astype(dtype)[None, None]
    if log_decay is None:
        return _Decay(1.0, jnp.asarray(seen), 1.0, 1.0)
    D = decays(log_decay)
    both = jnp.concatenate([D, D], axis=-2)
    to_end = jnp.expand_dims(D[..., -1, 1:], -1)
    return _Decay(both[..., :1], jnp.where(seen > 0, both[..., 1:], 0), to_end, D[..., -1:, :1])


def _decay_back(of: _Opened, dO: Array, dM: Array, by_end: Array, by_whole: Array) -> Array:
    """The cotangent of the log decay: of the logarithms of D, E, F and of the whole decay, each in its place."""
    by_start = jnp.sum(dO * of.from_state, axis=-1, keepdims=True)
    both = jnp.concatenate([by_start, dM * of.scores], axis=-1)
    C = dM.shape[-1]
    last = jnp.sum(by_whole, axis=(-2, -1))[..., None], jnp.sum(by_end, axis=-1)
    ends = jnp.expand_dims(jnp.concatenate(last, axis=-1), -2) * (np.arange(C) == C - 1).reshape(1, 1, C, 1)
    return decays_back(both[..., :C, :] + both[..., C:, :] + ends)


def _pieces(chunks: Chunks, Q: Keys, K: Keys, V: Values, beta: Numbers, log_decay: Numbers | None) -> Piece:
    """The arguments in chunks, heads before steps."""
    q, k, v, b = (chunks.of_heads(A) for A in (Q, K, V, beta))
    return jnp.concatenate([q, k], axis=-2), v, b, None if log_decay is None else chunks.of_heads(log_decay)


def _product(subscripts: str, A: Array, B: Array) -> Array:
    """einsum of the matrices of each example and head."""
    one, rest = subscripts.split(",")
    other, out = rest.split("->")
    return meshes.einsum(f"bh{one},bh{other}->bh{out}", A, B, accumulator(A, B))


def _sums(*arguments: Array | None) -> np.dtype:
    return accumulator(*(A for A in arguments if A is not None))


def _check_arguments(
    where: str, Q: Array, K: Array, V: Array, beta: Array, log_decay: Array | None, S0: Array | None
) -> None:
    """Queries are like keys; values, β and decays are of the same steps and heads; the state is of n_k by n_v."""
    for name, A in (("Q", Q), ("K", K), ("V", V)):
        check_array(where, name, A)
        if len(A.shape) != 4:
            raise InputError(f"{where}: {name} must have shape (batch, time, heads, features), got {describe(A)}")
    check_shape(where, "K", K, Q.shape, "like Q")
    check_shape(where, "V", V, (*Q.shape[:3], V.shape[3]), f"to meet K {tuple(K.shape)}")
    for name, A in (("beta", beta), ("log_decay", log_decay)):
        if A is not None or name == "beta":
            check_array(where, name, A)
            check_shape(where, name, A, Q.shape[:3], "(one number for each step and head)")
    if S0 is not None:
        check_array(where, "S0", S0)
        check_shape(where, "S0", S0, (len(Q), *Q.shape[2:], V.shape[3]), "(a matrix for each head, n_k by n_v)")
