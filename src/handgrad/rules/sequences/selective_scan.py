"""The selective scan of a state space model: a linear recurrence between an outer product and a contraction."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Hadamard, PerExample
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._chunks import Chunks, pairwise_sum
from handgrad.rules.sequences._recurrence import check_pair
from handgrad.rules.sequences.linear_recurrence import (
    LinearRecurrenceResiduals,
    linear_recurrence_backward,
    linear_recurrence_forward,
)

__all__ = ["SelectiveScanResiduals", "selective_scan", "selective_scan_backward", "selective_scan_forward"]

Steps = Float[Array, "batch time n"]
Projections = Float[Array, "batch time states"]
State = Float[Array, "batch n states"]

CHUNK = 32  # steps, unless told otherwise: their states should stay in a CPU's cache


class SelectiveScanResiduals(NamedTuple):
    """The arguments, by reference, and a state for each chunk, from which the states inside it are recomputed.

    Attributes:
      X, Delta, A, B, C, D: the arguments.
      H0: says whether there is a dH0, and its dtype.
      states: the state before each chunk, in float32 at least, features last.
    """

    X: Steps
    Delta: Steps
    A: Float[Array, "n states"]
    B: Projections
    C: Projections
    D: Float[Array, " n"] | None
    H0: State | None
    states: Float[Array, "chunks batch states n"]


def selective_scan_forward(
    X: Steps,
    Delta: Steps,
    A: Float[Array, "n states"],
    B: Projections,
    C: Projections,
    D: Float[Array, " n"] | None = None,
    H0: State | None = None,
    *,
    chunk: int | None = None,
) -> tuple[tuple[Steps, State], SelectiveScanResiduals]:
    """H_t = e^(diag(δ_t) A) ∘ H_{t−1} + (δ_t ∘ x_t) b_tᵀ and y_t = H_t c_t + d ∘ x_t.

    Each feature has its own state, a row of H, that decays by the feature's row of A and its step size δ. Returns
    (Y, H_T); the state is in float32 at least, whatever the dtype of the others.

    Args:
      X: x_t.
      Delta: δ_t ≥ 0.
      A: below 0.
      B, C: b_t, what is written with x_t, and c_t, what reads.
      D: d, the weights of a skip connection; None is none.
      H0: the state before the first step; None is zeros.
      chunk: steps of a chunk at most, whose states are materialized together. None is a number that is fast.
    Derivation: docs/derivations/sequences/selective_scan.md (Gu and Dao 2023)
    """
    where = "selective_scan_forward"
    _check_arguments(where, X, Delta, A, B, C, D, H0)
    dtype, sums = _dtype(X, Delta, A, B, C, D), accumulator(_dtype(X, Delta, A, B, C, D, H0))
    chunks = Chunks.of(where, X.shape[1], CHUNK if chunk is None else chunk)
    A_ = A.T.astype(sums)

    def one_chunk(h: Array, piece: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        X, Delta, B, C = (P.astype(sums) for P in piece)
        H = _recurrence(h, X, Delta, A_, B).H.reshape(*B.shape, X.shape[-1])
        return H[:, -1], (meshes.einsum("btzn,btz->btn", H, C), h)

    h = jnp.zeros((len(X), *A_.shape), sums) if H0 is None else jnp.swapaxes(H0, 1, 2).astype(sums)
    h, (Y, states) = meshes.scan(one_chunk, h, tuple(chunks.split(P, 1) for P in (X, Delta, B, C)))
    Y = chunks.join(Y, 1) if D is None else chunks.join(Y, 1) + D[None, None] * X
    kept = SelectiveScanResiduals(X, Delta, A, B, C, D, H0, states)
    return (Y.astype(dtype), jnp.swapaxes(h, 1, 2)), kept


def selective_scan_backward(
    residuals: SelectiveScanResiduals, dY: tuple[Steps, State], *, chunk: int | None = None
) -> tuple[Steps, Steps, PerExample, Projections, Projections, Hadamard | None, State | None]:
    """Pull dY, the pair (dY, dH_T), back through the chunks, from the last to the first.

        dH_t = dy_t c_tᵀ + e^(diag(δ_{t+1}) A) ∘ dH_{t+1}          the linear recurrence's own backward pass
        dZ_t = dH_t ∘ H_{t−1} ∘ e^(Z_t)      Z_t = diag(δ_t) A      du_t = dH_t b_t      u_t = δ_t ∘ x_t
        dc_t = H_tᵀ dy_t      db_t = dH_tᵀ u_t      dx_t = du_t ∘ δ_t + d ∘ dy_t      dδ_t = du_t ∘ x_t + (dZ_t ∘ A) 1
        dA = Σ_t diag(δ_t) dZ_t, example by example      dd = Σ_t dy_t ∘ x_t
    Derivation: docs/derivations/sequences/selective_scan.md
    """
    where = "selective_scan_backward"
    X, Delta, A, B, C, D, H0, states = check_residuals(where, residuals, SelectiveScanResiduals)
    check_pair(where, "dY", dY, "(dY, dH)")
    sums = states.dtype
    check_cotangent(where, dY[0], X.shape, _dtype(X, Delta, A, B, C, D))
    check_cotangent(where, dY[1], (len(X), *A.shape), sums, "dH", "H")
    chunks = Chunks.of(where, X.shape[1], CHUNK if chunk is None else chunk).of_states(where, states)
    A_ = A.T.astype(sums)
    last = (jnp.arange(chunks.size) == chunks.size - 1).astype(sums).reshape(1, -1, 1, 1)

    def one_chunk(
        carry: tuple[Array, Array], inputs: tuple[Array, tuple[Array, ...]]
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        (dh, dA), (h, piece) = carry, inputs
        X, Delta, B, C, dY = (P.astype(sums) for P in piece)
        kept, shape = _recurrence(h, X, Delta, A_, B), (*B.shape, X.shape[-1])
        dH = jnp.expand_dims(dY, 2) * jnp.expand_dims(C, 3) + last * jnp.expand_dims(dh, 1)
        ddecay, dH, dh = linear_recurrence_backward(kept, dH.reshape(kept.H.shape))
        assert dh is not None  # the recurrence began at h
        dZ, dH = (ddecay * kept.A).reshape(shape), dH.reshape(shape)
        du = meshes.einsum("btzn,btz->btn", dH, B)
        dDelta = du * X + pairwise_sum(dZ * A_[None, None], 2)
        dB = meshes.einsum("btzn,btn->btz", dH, Delta * X)
        dC = meshes.einsum("btzn,btn->btz", kept.H.reshape(shape), dY)
        dA = dA + pairwise_sum(dZ * jnp.expand_dims(Delta, 2), 1)
        return (dh.reshape(h.shape), dA), (du * Delta, dDelta, dB, dC)

    pieces = tuple(chunks.split(P, 1) for P in (X, Delta, B, C, dY[0]))
    nothing_yet = jnp.swapaxes(dY[1], 1, 2), jnp.zeros(states.shape[1:], sums)
    (dh, dA), found = meshes.scan(one_chunk, nothing_yet, (states, pieces), reverse=True)
    dX, dDelta, dB, dC = (chunks.join(d, 1) for d in found)
    dX = dX if D is None else dX + D[None, None] * dY[0]
    dD = None if D is None else Hadamard(X, dY[0], D.dtype)
    dH0 = None if H0 is None else jnp.swapaxes(dh, 1, 2).astype(H0.dtype)
    dA = PerExample(jnp.swapaxes(dA, 1, 2), A.dtype)
    return dX.astype(X.dtype), dDelta.astype(Delta.dtype), dA, dB.astype(B.dtype), dC.astype(C.dtype), dD, dH0


selective_scan = Rule(selective_scan_forward, selective_scan_backward)


def _recurrence(h: Array, X: Array, Delta: Array, A_: Array, B: Array) -> LinearRecurrenceResiduals:
    """The decays e^Z and the states of a chunk after the state h: (batch, steps, states × n), A_ being Aᵀ."""

    def flat(P: Array) -> Array:
        return P.reshape(*P.shape[:-2], P.shape[-2] * P.shape[-1])

    decay = jnp.exp(jnp.expand_dims(Delta, 2) * A_[None, None])
    written = jnp.expand_dims(Delta * X, 2) * jnp.expand_dims(B, 3)
    return linear_recurrence_forward(flat(decay), flat(written), flat(h))[1]


def _dtype(*arguments: Array | None) -> jnp.dtype:
    return jnp.result_type(*(P for P in arguments if P is not None))


def _check_arguments(
    where: str, X: Array, Delta: Array, A: Array, B: Array, C: Array, D: Array | None, H0: Array | None
) -> None:
    """Step sizes are like X; A has a row for each feature of X, and as many columns as B and C."""
    check_array(where, "X", X)
    if len(X.shape) != 3:
        raise InputError(f"{where}: X must have shape (batch, time, n), got {describe(X)}")
    check_array(where, "Delta", Delta)
    check_shape(where, "Delta", Delta, X.shape, "like X")
    check_array(where, "A", A)
    if len(A.shape) != 2 or A.shape[0] != X.shape[2]:
        raise InputError(f"{where}: A must have shape ({X.shape[2]}, states) to meet X {X.shape}, got {describe(A)}")
    for name, P in (("B", B), ("C", C)):
        check_array(where, name, P)
        check_shape(where, name, P, (*X.shape[:2], A.shape[1]), f"to meet A {tuple(A.shape)}")
    if D is not None:
        check_array(where, "D", D)
        check_shape(where, "D", D, X.shape[2:], "(one number for each feature)")
    if H0 is not None:
        check_array(where, "H0", H0)
        check_shape(where, "H0", H0, (len(X), *A.shape), "(a state for each feature)")
