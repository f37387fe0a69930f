"""The vanilla recurrent network of Elman, by backpropagation through time."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from handgrad import meshes
from handgrad.checks import as_row, check_choice, check_cotangent, check_residuals
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

__all__ = ["RnnResiduals", "rnn", "rnn_backward", "rnn_forward"]


class RnnResiduals(NamedTuple):
    """The arguments and the output: nothing that a neighboring layer would not keep.

    Attributes:
      X, H0, H: left sides of dW and dU; H makes the slopes, too.
      W, U: for dX and the scan back.
      b: for its dtype.
      lengths: int32, or None.
    """

    X: Float[Array, "batch time n_in"]
    W: Float[Array, "n_in n"]
    U: Float[Array, "n n"]
    b: Float[Array, " n"]
    H0: State
    H: Steps
    lengths: Lengths | None


def rnn_forward(
    X: Float[Array, "batch time n_in"],
    W: Float[Array, "n_in n"],
    U: Float[Array, "n n"],
    b: Float[Array, " n"],
    H0: Float[Array, "batch n"],
    lengths: Integer[Array, " batch"] | None = None,
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[tuple[Steps, State], RnnResiduals]:
    """h_t = φ(x_t W + h_{t−1} U + b), φ = tanh or relu; returns (H, H_last), H_last the state after the last step.

    Past an example's length the output is 0 and the state stays as it is. The value of a traced length is unknown:
    outside 1 … time it makes its example's outputs NaN. What X holds past the length, NaN too, reaches no output and
    no cotangent.

    Args:
      H0: the state before the first step.
      lengths: in 1 … time; None is all of time.
      activation: relu′(0) = 0.
      reverse: from each example's last step to its first.
      truncate: k, for truncated backpropagation through time: steps k, 2k, … read stop_gradient(h_{t−1}). Steps count
        from 0 in the direction of the scan. None truncates nowhere.
    Raises:
      InputError: a length outside 1 … time, where it is known at trace time.
    Derivation: docs/derivations/sequences/rnn.md (Elman 1990; Werbos 1990)
    """
    where = "rnn_forward"
    check_sequences(where, 1, X, W, U, b, lengths, H0=H0)
    check_choice(where, "activation", activation, ("tanh", "relu"))
    check_scan(where, reverse, truncate)
    dtype = jnp.result_type(X, W, U, b, H0)
    lengths, (H0,) = settle(lengths, X.shape[1], H0)
    phi = jnp.tanh if activation == "tanh" else jax.nn.relu

    def step(H: Array, inputs: tuple[Array, Mask]) -> tuple[Array, Array]:
        Z, (inside, cut) = inputs
        new = phi(Z + as_row(b, 2) + meshes.matmul(uncut(cut, H).astype(dtype), U, Z.dtype))
        return keep(inside, new, H), keep(inside, new, 0).astype(dtype)

    Z = meshes.matmul(time_first(X), W, accumulator(dtype))
    inputs = Z, mask_of(lengths, X.shape[1], reverse, truncate)
    H_last, H = meshes.scan(step, H0.astype(Z.dtype), inputs, reverse=reverse)
    H = time_first(H)
    return (H, H_last.astype(dtype)), RnnResiduals(X, W, U, b, H0, H, lengths)


def rnn_backward(
    residuals: RnnResiduals,
    dY: tuple[Steps, State],
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Float[Array, "batch time n_in"], Outer, Outer, Total, State, None]:
    """Pull dY = (dH, dH_last) back through time.

        δ_t = (dh_t + δ_{t+1} Uᵀ) ∘ φ′          one scan, which computes Δ = δ_1 … δ_T and nothing else
        dX = Δ Wᵀ      dW = Xᵀ Δ      dU = H_prevᵀ Δ      db = Δᵀ 1      dH0 = δ_1 Uᵀ

    Derivation: docs/derivations/sequences/rnn.md
    """
    where = "rnn_backward"
    X, W, U, b, H0, H, lengths = check_residuals(where, residuals, RnnResiduals)
    check_pair(where, "dY", dY, "(dH, dH_last)")
    dH, dH_last = dY
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    check_cotangent(where, dH_last, H0.shape, H.dtype, "dH_last", "H_last")
    dtype, sums = H.dtype, accumulator(H)

    def step(dstate: Array, inputs: tuple[Array, Array, Mask]) -> tuple[Array, Array]:
        dH, H, (inside, cut) = inputs
        dnew, H = dH.astype(sums) + dstate, H.astype(sums)
        dZ = dnew * (1 - H) * (1 + H) if activation == "tanh" else jnp.where(H > 0, dnew, 0)
        dZ = keep(inside, dZ, 0).astype(dtype)
        dbefore = halt(cut, meshes.matmul(dZ, U.T, sums))
        return keep(inside, dbefore, dstate), dZ

    inputs = time_first(dH), time_first(H), mask_of(lengths, X.shape[1], reverse, truncate)
    dH0, Delta = meshes.scan(step, dH_last.astype(sums), inputs, reverse=not reverse)
    Delta, H_prev = time_first(Delta), entering(H, H0, lengths, reverse)
    dX = meshes.matmul(Delta, W.T).astype(X.dtype)
    X, own = own_steps(X, lengths)
    dW, dU, db = Outer(X, Delta, W.dtype, own), Outer(H_prev, Delta, U.dtype, own), Total(Delta, b.dtype)
    return dX, dW, dU, db, dH0.astype(H0.dtype), None


rnn = Rule(rnn_forward, rnn_backward)
