"""State space duality: a state space model with one decay for each head is a linear attention (Mamba-2)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._blocks import (
    Chunks,
    Decays,
    States,
    carried,
    chunk_of,
    decays,
    in_chunks,
    in_order,
    of_triangle,
    product,
    triangle,
)
from handgrad.rules.sequences._recurrence import check_pair

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
OfGroups = Float[Array, "chunks batch groups chunk _m"]


class StateSpaceDualityResiduals(NamedTuple):
    """The arguments, by reference, and the state that each chunk starts from.

    Attributes:
      X, Delta, A, B, C, D: the arguments.
      H0: says whether there is a dH0, and its dtype.
      states: the state before each chunk, transposed, in float32 at least. Those in between are never made.
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
    q, k, v, levels = _prepared(chunk, X, Delta, A, B, C, H0)
    F, G, total = (P[:, :, :, 0] for P in levels[-1])
    groups, heads = q.shape[2], v.shape[2]

    y = product("ij,jn->in", _each_head(product("iz,jz->ij", q, k), heads) * _triangle(levels), v)
    written = product("iz,in->zn", k, _beside(jnp.exp(G) * v, groups))
    S, S_last = carried(None if H0 is None else jnp.swapaxes(H0, 2, 3), total, _apart(written, heads))
    y = y + jnp.exp(F) * _apart(product("iz,zn->in", q, _beside(S, groups)), heads)
    Y = in_order(y, X.shape[1])
    if D is not None:
        Y = Y + jnp.expand_dims(D, (0, 1, 3)) * X
    residuals = StateSpaceDualityResiduals(X, Delta, A, B, C, D, H0, S)
    return (Y.astype(jnp.result_type(X, B, C)), jnp.swapaxes(S_last, 2, 3)), residuals


def state_space_duality_backward(
    residuals: StateSpaceDualityResiduals, dY: tuple[Steps, State], *, chunk: int | None = None
) -> tuple[Steps, StepSizes, Hadamard, Projections, Projections, Total | None, State | None]:
    """Pull (dY, dH_T) back through each chunk, and through v = δ x and log a = δ A.

    With P = q kᵀ the products of a group, W the decays of a head, and D the cotangent of S′, carried in reverse:

        dv = (P ∘ W)ᵀ dy + e^G ∘ k D      dP = Σ dy vᵀ ∘ W, over the heads of a group
        dq = dP k + Σ (e^F ∘ dy) Sᵀ      dk = dPᵀ q + Σ (e^G ∘ v) Dᵀ      db = dk      dc = dq
        dx_t = δ_t dv_t + d dy_t      dδ_t = ⟨dv_t, x_t⟩ + A d log a_t
        dA = Σ_t δ_t d log a_t      dd = Σ_t ⟨dy_t, x_t⟩
    Derivation: docs/derivations/sequences/state_space_duality.md
    """
    where = "state_space_duality_backward"
    X, Delta, A, B, C, D, H0, S = check_residuals(where, residuals, StateSpaceDualityResiduals)
    check_pair(where, "dY", dY, "(dY, dH)")
    check_cotangent(where, dY[0], X.shape, jnp.result_type(X, B, C))
    check_cotangent(where, dY[1], (*X.shape[:1], *X.shape[2:], B.shape[3]), S.dtype, "dH", "H")
    chunk, tokens = chunk_of(where, chunk, X.shape[1], B.shape[3], X.shape[3], S=S), X.shape[1]
    q, k, v, levels = _prepared(chunk, X, Delta, A, B, C, H0)
    dy = in_chunks(dY[0], chunk, S.dtype)

    dq, dk, dv, d, dS0 = _between_chunks(q, k, v, S, levels[-1], dy, jnp.swapaxes(dY[1], 2, 3))
    dq, dk, dv, d = _inside_chunks(q, k, v, levels, dy, dq, dk, dv, d)
    dC, dB, dV, dlog_a = (in_order(P, tokens) for P in (dq, dk, dv, (d.F + d.total)[:, :, :, :, 0]))

    dyw, x, delta, a = (P.astype(S.dtype) for P in (dY[0], X, Delta, A))
    dlog_a = dlog_a[..., 0]
    dX = jnp.expand_dims(delta, 3) * dV
    dX = dX if D is None else dX + jnp.expand_dims(D, (0, 1, 3)) * dyw
    dDelta = jnp.sum(dV * x, axis=3) + a[None, None] * dlog_a
    dA = Hadamard(delta, dlog_a, A.dtype)
    dD = None if D is None else Total(jnp.sum(dyw * x, axis=3), D.dtype)
    dH0 = None if H0 is None else jnp.swapaxes(dS0, 2, 3).astype(H0.dtype)
    return dX.astype(X.dtype), dDelta.astype(Delta.dtype), dA, dB.astype(B.dtype), dC.astype(C.dtype), dD, dH0


state_space_duality = Rule(state_space_duality_forward, state_space_duality_backward)


def _between_chunks(
    q: OfGroups, k: OfGroups, v: Chunks, S: States, of_chunk: Decays, dy: Chunks, dS_last: Array
) -> tuple[OfGroups, OfGroups, Chunks, Decays, Array]:
    """The cotangents through y = e^F ∘ q S and S′ = e^total S + kᵀ (e^G ∘ v), in the reverse order of chunks."""
    F, G, total = (P[:, :, :, 0] for P in of_chunk)
    groups, heads = q.shape[2], v.shape[2]
    eF_dy, eG_v = jnp.exp(F) * dy, jnp.exp(G) * v
    dys, vs, Ss = (_beside(P, groups) for P in (eF_dy, eG_v, S))
    D, dS0 = carried(dS_last, total, _apart(product("iz,in->zn", q, dys), heads), reverse=True)  # D of S′
    Ds = _beside(D, groups)
    read, kD = (_apart(product("iz,zn->in", P, Q), heads) for P, Q in ((q, Ss), (k, Ds)))
    dq, dk = product("in,zn->iz", dys, Ss), product("in,zn->iz", vs, Ds)
    exponents = [jnp.sum(P, axis=-1, keepdims=True) for P in (eF_dy * read, eG_v * kD)]
    exponents.append(jnp.exp(total) * jnp.sum(S * D, axis=(3, 4), keepdims=True))
    return dq, dk, jnp.exp(G) * kD, Decays(*(jnp.expand_dims(P, 3) for P in exponents)), dS0


def _inside_chunks(
    q: OfGroups,
    k: OfGroups,
    v: Chunks,
    levels: list[Decays],
    dy: Chunks,
    dq: OfGroups,
    dk: OfGroups,
    dv: Chunks,
    d: Decays,
) -> tuple[OfGroups, OfGroups, Chunks, Decays]:
    """The cotangents so far, plus those through y = (q kᵀ ∘ W) v."""
    W, P = _triangle(levels), _each_head(product("iz,jz->ij", q, k), v.shape[2])
    dPW = product("in,jn->ij", dy, v) * W
    dP = _over_heads(dPW, q.shape[2])
    dq, dk = dq + product("ij,jz->iz", dP, k), dk + product("ij,iz->jz", dP, q)
    return dq, dk, dv + product("ij,in->jn", P * W, dy), of_triangle(d, P * dPW)


def _prepared(
    chunk: int, X: Steps, Delta: StepSizes, A: OfHeads, B: Projections, C: Projections, H0: State | None
) -> tuple[OfGroups, OfGroups, Chunks, list[Decays]]:
    """Queries, keys and values δ x in chunks, in float32 at least, and the decays of log a = δ A at all levels."""
    wide = accumulator(*(P for P in (X, Delta, A, B, C, H0) if P is not None))
    x, delta, a = (P.astype(wide) for P in (X, Delta, A))
    steps = jnp.expand_dims(delta * a[None, None], 3)
    q, k, v, log_a = (in_chunks(P, chunk, wide) for P in (C, B, jnp.expand_dims(delta, 3) * x, steps))
    return q, k, v, decays(log_a, reads_before=False)


def _triangle(levels: list[Decays]) -> Float[Array, "chunks batch heads chunk chunk"]:
    """The decays from each token of a chunk to itself, 1, and to each that follows; zeros elsewhere."""
    W = triangle(levels)
    return W + jnp.eye(W.shape[3], dtype=W.dtype)[None, None, None]


def _beside(P: Float[Array, "*front heads m _n"], groups: int) -> Float[Array, "*front groups m _n"]:
    """The features of a group's heads side by side: (…, heads, m, n) to (…, groups, m, heads / groups × n)."""
    *front, heads, m, n = P.shape
    each = heads // groups
    return jnp.moveaxis(P.reshape(*front, groups, each, m, n), -3, -2).reshape(*front, groups, m, each * n)


def _apart(P: Float[Array, "*front groups m _n"], heads: int) -> Float[Array, "*front heads m _n"]:
    """The inverse of `_beside`."""
    *front, groups, m, n = P.shape
    each = heads // groups
    return jnp.moveaxis(P.reshape(*front, groups, m, each, n // each), -2, -3).reshape(*front, heads, m, n // each)


def _each_head(P: Float[Array, "*front groups m _n"], heads: int) -> Float[Array, "*front heads m _n"]:
    """A group's matrix for each of its heads."""
    *front, groups, m, n = P.shape
    P = jnp.broadcast_to(jnp.expand_dims(P, -3), (*front, groups, heads // groups, m, n))
    return P.reshape(*front, heads, m, n)


def _over_heads(P: Float[Array, "*front heads m _n"], groups: int) -> Float[Array, "*front groups m _n"]:
    """The sums over the heads of each group: the transpose of `_each_head`."""
    *front, heads, m, n = P.shape
    return jnp.sum(P.reshape(*front, groups, heads // groups, m, n), axis=-3)


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
