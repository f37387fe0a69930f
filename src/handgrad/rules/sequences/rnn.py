"""The vanilla recurrent network of Elman, by backpropagation through time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_choice, check_cotangent, check_residuals
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
    "RnnResiduals",
    "rnn",
    "rnn_backward",
    "rnn_forward",
]

Array = jax.Array


class RnnResiduals(NamedTuple):
    """The arguments, and the output: nothing that a neighbor would not keep.

    Attributes:
      X: (batch, time, n_in) input, the left side of dW.
      W: (n_in, n) input weights, for dX.
      U: (n, n) recurrent weights, for the walk back.
      b: (n,) bias, for its dtype.
      H0: (batch, n) initial state, the left side of dU at the first step.
      H: (batch, time, n) output: the slopes, and the left side of dU at all other steps.
      lengths: (batch,) int32, or None.
    """

    X: Array
    W: Array
    U: Array
    b: Array
    H0: Array
    H: Array
    lengths: Array | None


def rnn_forward(
    X: Array,
    W: Array,
    U: Array,
    b: Array,
    H0: Array,
    lengths: Array | None = None,
    *,
    activation: str = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[tuple[Array, Array], RnnResiduals]:
    """h_t = φ(x_t W + h_{t−1} U + b), φ = tanh or relu.

    Past an example's length the output is 0 and the state goes on unchanged. A traced length can't be read: outside
    1 … time it makes its example's outputs NaN. What X holds past the length, NaN too, is in no output or cotangent.

    Args:
      X: (batch, time, n_in) floating point.
      W: (n_in, n).
      U: (n, n).
      b: (n,).
      H0: (batch, n) the state before the first step.
      lengths: (batch,) integers in 1 … time, or None for all of time.
      activation: "tanh" or "relu", with relu′(0) = 0.
      reverse: from each example's last step to its first.
      truncate: k; cotangents do not go from step k, 2k, … to the step before, as if each step there read
        stop_gradient(h_{t−1}). Steps count from 0 in the order of the walk. None cuts nowhere.
    Returns:
      (H (batch, time, n), H_last (batch, n) the state after the last step), in the promoted dtype; residuals.
    Raises:
      InputError: a wrong rank, width, dtype or option; a length outside 1 … time.
    Derivation: docs/derivations/sequences/rnn.md (Elman 1990; Werbos 1990)
    """
    where = "rnn_forward"
    check_sequences(where, 1, X, W, U, b, lengths, H0=H0)
    check_choice(where, "activation", activation, ("tanh", "relu"))
    check_walk(where, reverse, truncate)
    dtype = jnp.result_type(X, W, U, b, H0)
    lengths, H0 = settle(lengths, X.shape[1], H0)
    phi = jnp.tanh if activation == "tanh" else jax.nn.relu

    def step(H: Array, inputs: Any) -> tuple[Array, Array]:
        Z, (inside, cut) = inputs
        new = phi(Z + meshes.matmul(uncut(cut, H).astype(dtype), U, Z.dtype))
        return keep(inside, new, H), keep(inside, new, 0).astype(dtype)

    Z = project(X, W, b).astype(accumulator(dtype))
    walk = time_first(Z), mask_of(lengths, X.shape[1], reverse, truncate)
    H_last, H = meshes.scan(step, H0.astype(Z.dtype), walk, reverse=reverse)
    H = time_first(H)
    return (H, H_last.astype(dtype)), RnnResiduals(X, W, U, b, H0, H, lengths)


def rnn_backward(
    residuals: RnnResiduals,
    dY: tuple[Array, Array],
    *,
    activation: str = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Array, Outer, Outer, Total, Array, None]:
    """Pull (dH, dH_last) back through time.

        δ_t = (dh_t + δ_{t+1} Uᵀ) ∘ φ′          one scan, and all that it makes is Δ = δ_1 … δ_T
        dX = Δ Wᵀ      dW = Xᵀ Δ      dU = H_prevᵀ Δ      db = Δᵀ 1      dH0 = δ_1 Uᵀ

    Args:
      residuals: RnnResiduals of rnn_forward.
      dY: (dH (batch, time, n), dH_last (batch, n)) cotangents of H and H_last.
      activation, reverse, truncate: the forward's.
    Returns:
      dX (batch, time, n_in); dW: Outer, (n_in, n); dU: Outer, (n, n); db: Total, (n,); dH0 (batch, n); None for the
      lengths.
    Raises:
      InputError: residuals of another rule; dH or dH_last not of its output's shape and dtype.
    Derivation: docs/derivations/sequences/rnn.md (Elman 1990; Werbos 1990)
    """
    where = "rnn_backward"
    X, W, U, b, H0, H, lengths = check_residuals(where, residuals, RnnResiduals)
    dH, dH_last = check_two(where, "dY", dY, "(dH, dH_last)")
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    check_cotangent(where, dH_last, H0.shape, H.dtype, "dH_last", "H_last")
    dtype, sums = H.dtype, accumulator(H)

    def step(dstate: Array, inputs: Any) -> tuple[Array, Array]:
        dH, H, (inside, cut) = inputs
        dnew, H = dH.astype(sums) + dstate, H.astype(sums)
        dZ = dnew * (1 - H) * (1 + H) if activation == "tanh" else jnp.where(H > 0, dnew, 0)
        dZ = keep(inside, dZ, 0).astype(dtype)
        dbefore = halt(cut, meshes.matmul(dZ, U.T, sums))
        return keep(inside, dbefore, dstate), dZ

    walk = time_first(dH), time_first(H), mask_of(lengths, X.shape[1], reverse, truncate)
    dH0, Delta = meshes.scan(step, dH_last.astype(sums), walk, reverse=not reverse)
    Delta, H_prev = time_first(Delta), entering(H, H0, lengths, reverse)
    dX = meshes.matmul(Delta, W.T).astype(X.dtype)
    X, own = own_steps(X, lengths)
    return (
        dX,
        Outer(X, Delta, W.dtype, own),
        Outer(H_prev, Delta, U.dtype, own),
        Total(Delta, b.dtype),
        dH0.astype(H0.dtype),
        None,
    )


rnn = Rule(rnn_forward, rnn_backward)
