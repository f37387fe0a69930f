"""State space duality: a state space model with one decay for each head is a linear attention (Mamba-2)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._blocks import chunk_of
from handgrad.rules.sequences._recurrence import check_pair
from handgrad.rules.sequences.linear_attention import (
    LinearAttentionResiduals,
    linear_attention_backward,
    linear_attention_forward,
)

__all__ = [
    "StateSpaceDualityResiduals",
    "state_space_duality",
    "state_space_duality_backward",
    "state_space_duality_forward",
]

Steps = Float[Array, "batch time heads n"]
StepSizes = Float[Array, "batch time heads"]
Projections = Float[Array, "batch time groups states"]
OfHeads = Float[Array, " heads"]
State = Float[Array, "batch heads n states"]


class StateSpaceDualityResiduals(NamedTuple):
    """The arguments, by reference, and the state that each chunk starts from.

    Attributes:
      X, Delta, A, B, C, D: the arguments.
      H0: says whether there is a dH0, and its dtype.
      states: the state before each chunk, as linear attention has it (transposed), in float32 at least.
    """

    X: Steps
    Delta: StepSizes
    A: OfHeads
    B: Projections
    C: Projections
    D: OfHeads | None
    H0: State | None
    states: Float[Array, "chunks batch heads states n"]


def state_space_duality_forward(
    X: Steps,
    Delta: StepSizes,
    A: OfHeads,
    B: Projections,
    C: Projections,
    D: OfHeads | None = None,
    H0: State | None = None,
    *,
    chunk: int | None = None,
) -> tuple[tuple[Steps, State], StateSpaceDualityResiduals]:
    """H_t = e^(δ_t A) H_{t−1} + (δ_t x_t) b_tᵀ and y_t = H_t c_t + d x_t, for each example and head.

    It is linear attention of queries c_t, keys b_t, values δ_t x_t and log decays δ_t A. Returns (Y, H_T): Y in the
    dtype of X, B and C, the state in float32 at least.

    Args:
      X: x_t.
      Delta: δ_t ≥ 0, the size of the step, one for each head.
      A: below 0, the rate of each head.
      B, C: b_t, what is written with x_t, and c_t, what reads; each is shared by the heads of a group, which are
        neighbors.
      D: d, the weight of each head's skip connection; None is none.
      H0: the state before the first step; None is zeros.
      chunk: as linear_attention_forward.
    Derivation: docs/derivations/sequences/state_space_duality.md (Dao and Gu 2024)
    """
    where = "state_space_duality_forward"
    _check_arguments(where, X, Delta, A, B, C, D, H0)
    chunk = chunk_of(where, chunk, X.shape[1], B.shape[3], X.shape[3])
    (Y, S), kept = linear_attention_forward(*_as_attention(X, Delta, A, B, C, H0), chunk=chunk)
    if D is not None:
        Y = Y + _each_feature(D[None, None]) * X
    residuals = StateSpaceDualityResiduals(X, Delta, A, B, C, D, H0, kept.S)
    return (Y.astype(jnp.result_type(X, B, C)), jnp.swapaxes(S, 2, 3)), residuals


def state_space_duality_backward(
    residuals: StateSpaceDualityResiduals, dY: tuple[Steps, State], *, chunk: int | None = None
) -> tuple[Steps, StepSizes, Hadamard, Projections, Projections, Total | None, State | None]:
    """Pull (dY, dH_T) back through linear attention, which gives dq_t, dk_t, dv_t and d log a_t, and its arguments.

        dc_t = Σ dq_t      db_t = Σ dk_t, over the heads of a group
        dx_t = δ_t dv_t + d dy_t      dδ_t = ⟨dv_t, x_t⟩ + A d log a_t
        dA = Σ_t δ_t d log a_t      dd = Σ_t ⟨dy_t, x_t⟩
    Derivation: docs/derivations/sequences/state_space_duality.md
    """
    where = "state_space_duality_backward"
    X, Delta, A, B, C, D, H0, states = check_residuals(where, residuals, StateSpaceDualityResiduals)
    check_pair(where, "dY", dY, "(dY, dH)")
    check_cotangent(where, dY[0], X.shape, jnp.result_type(X, B, C))
    check_cotangent(where, dY[1], (*X.shape[:1], *X.shape[2:], B.shape[3]), states.dtype, "dH", "H")
    chunk = chunk_of(where, chunk, X.shape[1], B.shape[3], X.shape[3], S=states)
    Q, K, V, log_decay, bonus, S0 = _as_attention(X, Delta, A, B, C, H0)
    dy, x, delta, a = (P.astype(states.dtype) for P in (dY[0], X, Delta, A))

    kept = LinearAttentionResiduals(Q, K, V, log_decay, bonus, S0, states)
    dQ, dK, dV, dlog_decay, _, dS0 = linear_attention_backward(kept, (dy, jnp.swapaxes(dY[1], 2, 3)), chunk=chunk)
    assert dlog_decay is not None
    dlog_a = dlog_decay[..., 0]
    dX = _each_feature(delta) * dV
    dX = dX if D is None else dX + _each_feature(D[None, None]) * dy
    dDelta = jnp.sum(dV * x, axis=3) + a[None, None] * dlog_a
    dA = Hadamard(delta, dlog_a, A.dtype)
    dB, dC = (_over_heads(dP, P) for dP, P in ((dK, B), (dQ, C)))
    dD = None if D is None else Total(jnp.sum(dy * x, axis=3), D.dtype)
    dH0 = None if dS0 is None else jnp.swapaxes(dS0, 2, 3)
    return dX.astype(X.dtype), dDelta.astype(Delta.dtype), dA, dB, dC, dD, dH0


state_space_duality = Rule(state_space_duality_forward, state_space_duality_backward)


def _as_attention(
    X: Steps, Delta: StepSizes, A: OfHeads, B: Projections, C: Projections, H0: State | None
) -> tuple[Array, Array, Array, Array, None, Array | None]:
    """The arguments of linear attention, in float32 at least: Q, K, V, log decays, no bonus, and the state before."""
    wide = accumulator(*(P for P in (X, Delta, A, B, C, H0) if P is not None))
    x, delta, a, b, c = (P.astype(wide) for P in (X, Delta, A, B, C))
    Q, K = (_each_head(P, X.shape[2]) for P in (c, b))
    S0 = None if H0 is None else jnp.swapaxes(H0, 2, 3)
    return Q, K, _each_feature(delta) * x, _each_feature(delta * a[None, None]), None, S0


def _each_feature(P: Float[Array, "*front heads"]) -> Float[Array, "*front heads 1"]:
    """A number for each head beside the features of each."""
    return jnp.expand_dims(P, P.ndim)


def _each_head(P: Projections, heads: int) -> Float[Array, "batch time {heads} states"]:
    """Each group's vector for each of its heads."""
    batch, time, groups, states = P.shape
    P = jnp.broadcast_to(jnp.expand_dims(P, 3), (batch, time, groups, heads // groups, states))
    return P.reshape(batch, time, heads, states)


def _over_heads(dP: Float[Array, "batch time heads states"], P: Projections) -> Projections:
    """The sums over the heads of each group, in P's dtype: the transpose of `_each_head`."""
    batch, time, groups, states = P.shape
    return jnp.sum(dP.reshape(batch, time, groups, dP.shape[2] // groups, states), axis=3).astype(P.dtype)


def _check_arguments(
    where: str, X: Array, Delta: Array, A: Array, B: Array, C: Array, D: Array | None, H0: Array | None
) -> None:
    """A step size for each head of X, and groups that divide the heads."""
    check_array(where, "X", X)
    if len(X.shape) != 4 or 0 in X.shape[1:]:
        raise InputError(f"{where}: X must have shape (batch, time, heads, n), none 0 but batch, got {describe(X)}")
    batch, time, heads, n = X.shape
    check_array(where, "B", B)
    if len(B.shape) != 4 or B.shape[:2] != X.shape[:2] or not B.shape[2] or heads % B.shape[2]:
        expected = f"({batch}, {time}, groups, states), where groups divides the {heads} heads of X"
        raise InputError(f"{where}: B must have shape {expected}, got {describe(B)}")
    expected = {
        "Delta": (Delta, (batch, time, heads), "(a step size for each head)"),
        "A": (A, (heads,), "(a rate for each head)"),
        "C": (C, B.shape, "like B"),
        "D": (D, (heads,), "(a weight for each head)"),
        "H0": (H0, (batch, heads, n, B.shape[3]), "(a state for each head)"),
    }
    for name, (P, shape, why) in expected.items():
        if P is not None or name in ("Delta", "A", "C"):
            check_array(where, name, P)
            check_shape(where, name, P, shape, why)
