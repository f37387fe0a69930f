"""The gated recurrent unit, in the form that resets after the product (cuDNN's and PyTorch's)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import as_row, check_array, check_choice, check_cotangent, check_residuals, check_shape
from handgrad.factors import Outer, Total
from handgrad.factors.base import accumulator
from handgrad.rules.rule import Rule
from handgrad.rules.sequences._recurrence import (
    check_sequences,
    check_two,
    check_walk,
    entering,
    halt,
    keep,
    mask_of,
    own_steps,
    project,
    settle,
    time_first,
    uncut,
)

__all__ = [
    "GruResiduals",
    "gru",
    "gru_backward",
    "gru_forward",
]

Array = jax.Array


class GruResiduals(NamedTuple):
    """The arguments, the output, and the gates where they are not computed again.

    Attributes:
      X: (batch, time, n_in) input, the left side of dW.
      W: (n_in, 3 n) input weights, for dX.
      U: (n, 3 n) recurrent weights, for the walk back.
      b: (3 n,) bias, to compute the gates again.
      c: (n,) bias inside the reset product, likewise.
      H0: (batch, n) initial state, the left side of dU at the first step.
      H: (batch, time, n) output, the left side of dU at all other steps.
      gates: (batch, time, 4 n) r, z, n and the product a that r is multiplied with; None with residuals="recompute".
      lengths: (batch,) int32, or None.
    """

    X: Array
    W: Array
    U: Array
    b: Array
    c: Array
    H0: Array
    H: Array
    gates: Array | None
    lengths: Array | None


def gru_forward(
    X: Array,
    W: Array,
    U: Array,
    b: Array,
    c: Array,
    H0: Array,
    lengths: Array | None = None,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: str = "save",
) -> tuple[tuple[Array, Array], GruResiduals]:
    """h_t = (1 − z) ∘ n + z ∘ h_{t−1},  n = tanh(x_t W_n + b_n + r ∘ a),  a = h_{t−1} U_n + c.

    r = σ(x_t W_r + h_{t−1} U_r + b_r) resets; z, made likewise, updates. W, U and b hold r, z, n side by side, in
    PyTorch's order; its weights are Wᵀ and Uᵀ, its two biases add up in b for r and z and are b_n and c for n. Past an
    example's length the output is 0 and the state goes on unchanged. A traced length can't be read: outside 1 … time it
    makes its example's outputs NaN. What X holds past the length, NaN too, is in no output or cotangent.

    Args:
      X: (batch, time, n_in) floating point.
      W: (n_in, 3 n).
      U: (n, 3 n).
      b: (3 n,).
      c: (n,).
      H0: (batch, n) the state before the first step.
      lengths: (batch,) integers in 1 … time, or None for all of time.
      reverse: from each example's last step to its first.
      truncate: k; cotangents do not go from step k, 2k, … to the step before, as if each step there read
        stop_gradient(h_{t−1}). Steps count from 0 in the order of the walk. None cuts nowhere.
      residuals: "save" keeps the gates; "recompute" computes them again, in two products for all time.
    Returns:
      (H (batch, time, n), H_last (batch, n) the state after the last step), in the promoted dtype; residuals.
    Raises:
      InputError: a wrong rank, width, dtype or option; a length outside 1 … time.
    Derivation: docs/derivations/sequences/gru.md (Cho et al. 2014; reset after the product: Chung et al. 2014)
    """
    where = "gru_forward"
    check_sequences(where, 3, X, W, U, b, lengths, H0=H0)
    check_array(where, "c", c)
    check_shape(where, "c", c, (U.shape[0],), f"to meet U {tuple(U.shape)}")
    check_walk(where, reverse, truncate)
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    dtype = jnp.result_type(X, W, U, b, c, H0)
    lengths, H0 = settle(lengths, X.shape[1], H0)

    def step(state: Array, inputs: Any) -> tuple[Array, Any]:
        Z, (inside, cut) = inputs
        H = uncut(cut, state)
        _, z, n, _ = gates = _gates(Z, meshes.matmul(H.astype(dtype), U, Z.dtype), c)
        new = (1 - z) * n + z * H
        kept = jnp.concatenate(gates, axis=-1).astype(dtype) if residuals == "save" else None
        return keep(inside, new, state), (keep(inside, new, 0).astype(dtype), kept)

    Z = project(X, W, b).astype(accumulator(dtype))
    walk = time_first(Z), mask_of(lengths, X.shape[1], reverse, truncate)
    H_last, outputs = meshes.scan(step, H0.astype(Z.dtype), walk, reverse=reverse)
    H, gates = jax.tree.map(time_first, outputs)
    return (H, H_last.astype(dtype)), GruResiduals(X, W, U, b, c, H0, H, gates, lengths)


def gru_backward(
    residuals: GruResiduals,
    dY: tuple[Array, Array],
    *,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Array, Outer, Outer, Total, Total, Array, None]:
    """Pull (dH, dH_last) back through time.

        dh = dh_t + dh_{t+1} ∘ z_{t+1} + ε_{t+1} Uᵀ
        δ_n = dh ∘ (1 − z) ∘ (1 − n²)      δ_z = dh ∘ (h_{t−1} − n) ∘ z (1 − z)      δ_r = δ_n ∘ a ∘ r (1 − r)
        δ_t = [δ_r δ_z δ_n] is what x_t W + b gets,  ε_t = [δ_r δ_z δ_n ∘ r] what h_{t−1} U gets
        dX = Δ Wᵀ      dW = Xᵀ Δ      dU = H_prevᵀ Ε      db = Δᵀ 1      dc = Ε_nᵀ 1      dH0 = dh_1 ∘ z_1 + ε_1 Uᵀ

    Args:
      residuals: GruResiduals of gru_forward.
      dY: (dH (batch, time, n), dH_last (batch, n)) cotangents of H and H_last.
      reverse, truncate: the forward's.
    Returns:
      dX (batch, time, n_in); dW: Outer, (n_in, 3 n); dU: Outer, (n, 3 n); db: Total, (3 n,); dc: Total, (n,); dH0
      (batch, n); None for the lengths.
    Raises:
      InputError: residuals of another rule; dH or dH_last not of its output's shape and dtype.
    Derivation: docs/derivations/sequences/gru.md (Cho et al. 2014; reset after the product: Chung et al. 2014)
    """
    where = "gru_backward"
    X, W, U, b, c, H0, H, gates, lengths = check_residuals(where, residuals, GruResiduals)
    dH, dH_last = check_two(where, "dY", dY, "(dH, dH_last)")
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    check_cotangent(where, dH_last, H0.shape, H.dtype, "dH_last", "H_last")
    dtype, sums, H_prev = H.dtype, accumulator(H), entering(H, H0, lengths, reverse)
    if gates is None:  # every state is known by now: no scan
        gates = jnp.concatenate(_gates(project(X, W, b), meshes.matmul(H_prev, U, sums), c), axis=-1)

    def step(dstate: Array, inputs: Any) -> tuple[Array, Any]:
        *arrays, (inside, cut) = inputs
        dH, gates, H_prev = (a.astype(sums) for a in arrays)
        r, z, n, a = jnp.split(gates, 4, axis=-1)
        dH = dH + dstate
        dn = dH * (1 - z) * (1 - n) * (1 + n)
        dZ = (dn * a * r * (1 - r), dH * (H_prev - n) * z * (1 - z), dn)
        dZ = keep(inside, jnp.concatenate(dZ, axis=-1), 0).astype(dtype)
        before = dH * z + meshes.matmul(_after_reset(dZ, r), U.T, sums)
        return keep(inside, halt(cut, before), dstate), dZ

    walk = (*map(time_first, (dH, gates, H_prev)), mask_of(lengths, X.shape[1], reverse, truncate))
    dH0, Delta = meshes.scan(step, dH_last.astype(sums), walk, reverse=not reverse)
    Delta, n = time_first(Delta), U.shape[0]
    Epsilon, own = own_steps(_after_reset(Delta, gates[..., :n]), lengths)
    dX, dW = meshes.matmul(Delta, W.T).astype(X.dtype), Outer(own_steps(X, lengths)[0], Delta, W.dtype, own)
    dU = Outer(H_prev, Epsilon, U.dtype, own)
    return dX, dW, dU, Total(Delta, b.dtype), Total(Epsilon[..., 2 * n :], c.dtype), dH0.astype(H0.dtype), None


gru = Rule(gru_forward, gru_backward)


def _gates(Z: Array, R: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    """r, z, n and a from x W + b and h U, three parts side by side in each."""
    (Z_r, Z_z, Z_n), (R_r, R_z, R_n) = jnp.split(Z, 3, axis=-1), jnp.split(R, 3, axis=-1)
    a = R_n + as_row(c.astype(R.dtype), R.ndim)
    r, z = jax.lax.logistic(Z_r + R_r), jax.lax.logistic(Z_z + R_z)
    return r, z, jnp.tanh(Z_n + r * a), a


def _after_reset(Delta: Array, r: Array) -> Array:
    """Ε of Δ: what the product with U gets is what x W gets, but for n's part, which the reset stands before."""
    D_r, D_z, D_n = jnp.split(Delta, 3, axis=-1)
    return jnp.concatenate((D_r, D_z, (D_n * r).astype(Delta.dtype)), axis=-1)
