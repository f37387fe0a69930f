"""The gated recurrent unit, in the form that resets after the product (cuDNN's and PyTorch's)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PyTree

from handgrad import meshes
from handgrad.checks import as_row, check_array, check_choice, check_cotangent, check_residuals, check_shape
from handgrad.factors import Outer, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._recurrence import (
    Lengths,
    Mask,
    State,
    Steps,
    check_pair,
    check_scan,
    check_sequences,
    entering,
    halt,
    keep,
    mask_of,
    own_steps,
    settle,
    time_first,
    uncut,
)

__all__ = ["GruResiduals", "gru", "gru_backward", "gru_forward"]


class GruResiduals(NamedTuple):
    """The arguments, the output, and the gates where they are not recomputed.

    Attributes:
      X, H0, H: left sides of dW and dU.
      W, U, b, c: for dX, the scan back, and to recompute the gates.
      gates: r, z, n and the product a that r multiplies; None with residuals="recompute".
      lengths: int32, or None.
    """

    X: Float[Array, "batch time n_in"]
    W: Float[Array, "n_in three_n"]
    U: Float[Array, "n three_n"]
    b: Float[Array, " three_n"]
    c: Float[Array, " n"]
    H0: State
    H: Steps
    gates: tuple[Steps, Steps, Steps, Steps] | None
    lengths: Lengths | None


def gru_forward(
    X: Float[Array, "batch time n_in"],
    W: Float[Array, "n_in three_n"],
    U: Float[Array, "n three_n"],
    b: Float[Array, " three_n"],
    c: Float[Array, " n"],
    H0: Float[Array, "batch n"],
    lengths: Integer[Array, " batch"] | None = None,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[tuple[Steps, State], GruResiduals]:
    """h_t = (1 − z) ∘ n + z ∘ h_{t−1},  n = tanh(x_t W_n + b_n + r ∘ a),  a = h_{t−1} U_n + c.

    The reset gate is r = σ(x_t W_r + h_{t−1} U_r + b_r), the update gate z likewise. W, U and b hold r, z, n side by
    side, in PyTorch's order; its weights are Wᵀ and Uᵀ, its two biases add up in b for r and z and are b_n and c for n.
    Returns (H, H_last), the latter the state after the last step.

    Args:
      H0: the state before the first step.
      lengths, reverse, truncate: as rnn_forward's.
      residuals: "save" keeps the gates; "recompute" computes them again, step by step, and has no array of three n
        columns for all of time but Δ.
    Raises:
      InputError: a length outside 1 … time, where it is known at trace time.
    Derivation: docs/derivations/sequences/gru.md (Cho et al. 2014; reset after the product: Chung et al. 2014)
    """
    where = "gru_forward"
    check_sequences(where, 3, X, W, U, b, lengths, H0=H0)
    check_array(where, "c", c)
    check_shape(where, "c", c, (U.shape[0],), f"to meet U {tuple(U.shape)}")
    check_scan(where, reverse, truncate)
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    dtype = jnp.result_type(X, W, U, b, c, H0)
    sums = accumulator(dtype)
    lengths, (H0,) = settle(lengths, X.shape[1], H0)

    def step(state: Array, inputs: tuple[Array, Mask]) -> tuple[Array, tuple[Array, tuple[Array, ...] | None]]:
        X_or_Z, (inside, cut) = inputs
        H = uncut(cut, state)
        Z = X_or_Z if residuals == "save" else meshes.matmul(X_or_Z, W, sums)
        _, z, n, _ = gates = _gates(Z + as_row(b, 2), meshes.matmul(H.astype(dtype), U, sums), c)
        new = (1 - z) * n + z * H
        kept = tuple(gate.astype(dtype) for gate in gates) if residuals == "save" else None
        return keep(inside, new, state), (keep(inside, new, 0).astype(dtype), kept)

    inputs = time_first(X)
    if residuals == "save":
        inputs = meshes.matmul(inputs, W, sums)
    mask = mask_of(lengths, X.shape[1], reverse, truncate)
    H_last, outputs = meshes.scan(step, H0.astype(sums), (inputs, mask), reverse=reverse)
    H, gates = jax.tree.map(time_first, outputs)
    return (H, H_last.astype(dtype)), GruResiduals(X, W, U, b, c, H0, H, gates, lengths)


def gru_backward(
    residuals: GruResiduals, dY: tuple[Steps, State], *, reverse: bool = False, truncate: int | None = None
) -> tuple[Float[Array, "batch time n_in"], Outer, Outer, Total, Total, State, None]:
    """Pull dY = (dH, dH_last) back through time.

        dh = dh_t + dh_{t+1} ∘ z_{t+1} + ε_{t+1} Uᵀ
        δ_n = dh ∘ (1 − z) ∘ (1 − n²)      δ_z = dh ∘ (h_{t−1} − n) ∘ z (1 − z)      δ_r = δ_n ∘ a ∘ r (1 − r)
        δ_t = [δ_r δ_z δ_n] goes to x_t W + b,  ε_t = [δ_r δ_z δ_n ∘ r] to h_{t−1} U
        dX = Δ Wᵀ      dW = Xᵀ Δ      dU = H_prevᵀ Ε      db = Δᵀ 1      dc = Ε_nᵀ 1      dH0 = dh_1 ∘ z_1 + ε_1 Uᵀ

    Derivation: docs/derivations/sequences/gru.md
    """
    where = "gru_backward"
    X, W, U, b, c, H0, H, gates, lengths = check_residuals(where, residuals, GruResiduals)
    check_pair(where, "dY", dY, "(dH, dH_last)")
    dH, dH_last = dY
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    check_cotangent(where, dH_last, H0.shape, H.dtype, "dH_last", "H_last")
    dtype, sums, H_prev = H.dtype, accumulator(H), entering(H, H0, lengths, reverse)
    kept = X if gates is None else gates

    def step(dstate: Array, inputs: tuple[PyTree, Mask]) -> tuple[Array, tuple[Array, Array | None]]:
        (kept, dH, H_prev), (inside, cut) = inputs
        if gates is None:
            kept = _gates(meshes.matmul(kept, W, sums) + as_row(b, 2), meshes.matmul(H_prev, U, sums), c)
        r, z, n, a, dH, H_prev = (a.astype(sums) for a in (*kept, dH, H_prev))
        dH = dH + dstate
        dn = dH * (1 - z) * (1 - n) * (1 + n)
        dZ = (dn * a * r * (1 - r), dH * (H_prev - n) * z * (1 - z), dn)
        dZ = keep(inside, jnp.concatenate(dZ, axis=-1), 0).astype(dtype)
        before = dH * z + meshes.matmul(_after_reset(dZ, r), U.T, sums)
        return keep(inside, halt(cut, before), dstate), (dZ, r.astype(dtype) if gates is None else None)

    inputs = jax.tree.map(time_first, (kept, dH, H_prev)), mask_of(lengths, X.shape[1], reverse, truncate)
    dH0, outputs = meshes.scan(step, dH_last.astype(sums), inputs, reverse=not reverse)
    (Delta, r), n = jax.tree.map(time_first, outputs), U.shape[0]
    Epsilon, own = own_steps(_after_reset(Delta, r if gates is None else gates[0]), lengths)
    dX, dW = meshes.matmul(Delta, W.T).astype(X.dtype), Outer(own_steps(X, lengths)[0], Delta, W.dtype, own)
    dU = Outer(H_prev, Epsilon, U.dtype, own)
    return dX, dW, dU, Total(Delta, b.dtype), Total(Epsilon[..., 2 * n :], c.dtype), dH0.astype(H0.dtype), None


gru = Rule(gru_forward, gru_backward)


def _gates(Z: Array, R: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    """r, z, n and a from Z = x W + b and R = h U, three parts side by side in each."""
    (Z_r, Z_z, Z_n), (R_r, R_z, R_n) = jnp.split(Z, 3, axis=-1), jnp.split(R, 3, axis=-1)
    a = R_n + as_row(c.astype(R.dtype), R.ndim)
    r, z = jax.lax.logistic(Z_r + R_r), jax.lax.logistic(Z_z + R_z)
    return r, z, jnp.tanh(Z_n + r * a), a


def _after_reset(Delta: Array, r: Array) -> Array:
    """Ε, the cotangent of h U, from Δ, that of x W + b: n's part goes through the reset gate."""
    D_r, D_z, D_n = jnp.split(Delta, 3, axis=-1)
    return jnp.concatenate((D_r, D_z, (D_n * r).astype(Delta.dtype)), axis=-1)
