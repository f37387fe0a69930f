"""Long short-term memory: a cell that forgets and takes in by gates, read through a gate."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PyTree

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

__all__ = ["LstmResiduals", "lstm", "lstm_backward", "lstm_forward"]

Gates = tuple[Steps, Steps, Steps, Steps]
Kept = tuple[Array, Array, tuple[Array, ...] | None]  # h, c and the gates of a step


class LstmResiduals(NamedTuple):
    """The arguments, the output, the cell, and the gates where they are not recomputed.

    Attributes:
      X, H0, H: left sides of dW and dU.
      W, U, b: for dX, the scan back, and to recompute the gates.
      C0, C: the cell, by which the forget gate is multiplied a step later.
      gates: i, f, g, o; None with residuals="recompute".
      lengths: int32, or None.
    """

    X: Float[Array, "batch time n_in"]
    W: Float[Array, "n_in four_n"]
    U: Float[Array, "n four_n"]
    b: Float[Array, " four_n"]
    H0: State
    C0: State
    H: Steps
    C: Steps
    gates: Gates | None
    lengths: Lengths | None


def lstm_forward(
    X: Float[Array, "batch time n_in"],
    W: Float[Array, "n_in four_n"],
    U: Float[Array, "n four_n"],
    b: Float[Array, " four_n"],
    H0: Float[Array, "batch n"],
    C0: Float[Array, "batch n"],
    lengths: Integer[Array, " batch"] | None = None,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[tuple[Steps, tuple[State, State]], LstmResiduals]:
    """c_t = f ∘ c_{t−1} + i ∘ g,  h_t = o ∘ tanh(c_t),  with the gates from [z_i z_f z_g z_o] = x_t W + h_{t−1} U + b.

    i, f, o = σ(z_i), σ(z_f), σ(z_o) and g = tanh(z_g). The order i, f, g, o is PyTorch's; its weights are Wᵀ and Uᵀ,
    and b is the sum of its two biases. Returns (H, (H_last, C_last)), the latter the state after the last step.

    Args:
      H0, C0: the state before the first step.
      lengths, reverse, truncate: as rnn_forward's; truncation is of both h_{t−1} and c_{t−1}.
      residuals: "save" keeps the gates; "recompute" computes them again, step by step, and has no array of four n
        columns for all of time but Δ.
    Raises:
      InputError: a length outside 1 … time, where it is known at trace time.
    Derivation: docs/derivations/sequences/lstm.md (Hochreiter, Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000)
    """
    where = "lstm_forward"
    check_sequences(where, 4, X, W, U, b, lengths, H0=H0, C0=C0)
    check_scan(where, reverse, truncate)
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    dtype = jnp.result_type(X, W, U, b, H0, C0)
    sums = accumulator(dtype)
    lengths, (H0, C0) = settle(lengths, X.shape[1], H0, C0)

    def step(state: tuple[Array, Array], inputs: tuple[Array, Mask]) -> tuple[tuple[Array, Array], Kept]:
        X_or_Z, (inside, cut) = inputs
        H_prev, C_prev = uncut(cut, state[0]), uncut(cut, state[1])
        Z = X_or_Z if residuals == "save" else meshes.matmul(X_or_Z, W, sums)
        i, f, g, o = gates = _gates(Z + as_row(b, 2) + meshes.matmul(H_prev.astype(dtype), U, sums))
        C = f * C_prev + i * g
        H = o * jnp.tanh(C)
        of_step = keep(inside, H, 0).astype(dtype), keep(inside, C, 0).astype(dtype)
        kept = tuple(gate.astype(dtype) for gate in gates) if residuals == "save" else None
        return (keep(inside, H, state[0]), keep(inside, C, state[1])), (*of_step, kept)

    inputs = time_first(X)
    if residuals == "save":
        inputs = meshes.matmul(inputs, W, sums)
    state, mask = (H0.astype(sums), C0.astype(sums)), mask_of(lengths, X.shape[1], reverse, truncate)
    (H_last, C_last), outputs = meshes.scan(step, state, (inputs, mask), reverse=reverse)
    H, C, gates = jax.tree.map(time_first, outputs)
    last = H_last.astype(dtype), C_last.astype(dtype)
    return (H, last), LstmResiduals(X, W, U, b, H0, C0, H, C, gates, lengths)


def lstm_backward(
    residuals: LstmResiduals,
    dY: tuple[Steps, tuple[State, State]],
    *,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Float[Array, "batch time n_in"], Outer, Outer, Total, State, State, None]:
    """Pull dY = (dH, (dH_last, dC_last)) back through time.

        dh = dh_t + δ_{t+1} Uᵀ      dc = dc_{t+1} ∘ f_{t+1} + dh ∘ o ∘ (1 − tanh² c_t)
        δ_t = [dc ∘ g ∘ i (1 − i)   dc ∘ c_{t−1} ∘ f (1 − f)   dc ∘ i ∘ (1 − g²)   dh ∘ tanh(c_t) ∘ o (1 − o)]
        dX = Δ Wᵀ      dW = Xᵀ Δ      dU = H_prevᵀ Δ      db = Δᵀ 1      dH0 = δ_1 Uᵀ      dC0 = dc_1 ∘ f_1

    Derivation: docs/derivations/sequences/lstm.md
    """
    where = "lstm_backward"
    X, W, U, b, H0, C0, H, C, gates, lengths = check_residuals(where, residuals, LstmResiduals)
    check_pair(where, "dY", dY, "(dH, (dH_last, dC_last))")
    check_pair(where, "dY[1]", dY[1], "(dH_last, dC_last)")
    dH, (dH_last, dC_last) = dY
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    check_cotangent(where, dH_last, H0.shape, H.dtype, "dH_last", "H_last")
    check_cotangent(where, dC_last, C0.shape, H.dtype, "dC_last", "C_last")
    dtype, sums = H.dtype, accumulator(H)
    H_prev, C_prev = entering(H, H0, lengths, reverse), entering(C, C0, lengths, reverse)
    kept = (X, H_prev) if gates is None else gates

    def step(dstate: tuple[Array, Array], inputs: tuple[PyTree, Mask]) -> tuple[tuple[Array, Array], Array]:
        (kept, *arrays), (inside, cut) = inputs
        if gates is None:
            X, H_prev = kept
            kept = _gates(meshes.matmul(X, W, sums) + as_row(b, 2) + meshes.matmul(H_prev, U, sums))
        i, f, g, o, dH, C, C_prev = (a.astype(sums) for a in (*kept, *arrays))
        T = jnp.tanh(C)
        dH = dH + dstate[0]
        dC = dstate[1] + dH * o * (1 - T) * (1 + T)
        dZ = (dC * g * i * (1 - i), dC * C_prev * f * (1 - f), dC * i * (1 - g) * (1 + g), dH * T * o * (1 - o))
        dZ = keep(inside, jnp.concatenate(dZ, axis=-1), 0).astype(dtype)
        dH_prev, dC_prev = halt(cut, meshes.matmul(dZ, U.T, sums)), halt(cut, dC * f)
        return (keep(inside, dH_prev, dstate[0]), keep(inside, dC_prev, dstate[1])), dZ

    inputs = jax.tree.map(time_first, (kept, dH, C, C_prev)), mask_of(lengths, X.shape[1], reverse, truncate)
    state = dH_last.astype(sums), dC_last.astype(sums)
    (dH0, dC0), Delta = meshes.scan(step, state, inputs, reverse=not reverse)
    Delta = time_first(Delta)
    dX, dH0, dC0 = meshes.matmul(Delta, W.T).astype(X.dtype), dH0.astype(H0.dtype), dC0.astype(C0.dtype)
    X, own = own_steps(X, lengths)
    dW, dU, db = Outer(X, Delta, W.dtype, own), Outer(H_prev, Delta, U.dtype, own), Total(Delta, b.dtype)
    return dX, dW, dU, db, dH0, dC0, None


lstm = Rule(lstm_forward, lstm_backward)


def _gates(Z: Array) -> tuple[Array, Array, Array, Array]:
    """i, f, g, o from their pre-activations side by side."""
    i, f, g, o = jnp.split(Z, 4, axis=-1)
    return jax.lax.logistic(i), jax.lax.logistic(f), jnp.tanh(g), jax.lax.logistic(o)
