"""The linear recurrence: steps that need not wait for one another, since affine maps compose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors.base import accumulator
from handgrad.rules.rule import Rule
from handgrad.rules.sequences._recurrence import check_walk, entering

__all__ = [
    "LinearRecurrenceResiduals",
    "linear_recurrence",
    "linear_recurrence_backward",
    "linear_recurrence_forward",
]

Array = jax.Array
Affine = tuple[Array, Array]


class LinearRecurrenceResiduals(NamedTuple):
    """What the walk back multiplies with: the arguments and the output.

    Attributes:
      A: (batch, time, n) decays.
      B: (batch, time, n) what each step adds, for its dtype alone.
      H0: (batch, n) initial state, or None.
      H: (batch, time, n) output: after H0, the states that the decays were multiplied with.
    """

    A: Array
    B: Array
    H0: Array | None
    H: Array


def linear_recurrence_forward(
    A: Array, B: Array, H0: Array | None = None, *, reverse: bool = False
) -> tuple[Array, LinearRecurrenceResiduals]:
    """h_t = a_t ∘ h_{t−1} + b_t, by an associative scan: some 2 log₂(time) rounds of products instead of time steps.

    Args:
      A: (batch, time, n) floating point.
      B: (batch, time, n).
      H0: (batch, n) the state before the first step; None stands for zeros.
      reverse: from the last step to the first: h_t = a_t ∘ h_{t+1} + b_t.
    Returns:
      H (batch, time, n) in the promoted dtype; residuals.
    Raises:
      InputError: a wrong rank, shape, dtype or option.
    Derivation: docs/derivations/sequences/linear_recurrence.md (Blelloch 1990; Martin, Cundy 2018)
    """
    where = "linear_recurrence_forward"
    check_array(where, "A", A)
    if len(A.shape) != 3:
        raise InputError(f"{where}: A must have shape (batch, time, n), got {describe(A)}")
    check_array(where, "B", B)
    check_shape(where, "B", B, A.shape, "like A")
    if H0 is not None:
        check_array(where, "H0", H0)
        check_shape(where, "H0", H0, (A.shape[0], A.shape[2]), "(one state for each example, as wide as A)")
    check_walk(where, reverse, None)
    dtype = jnp.result_type(A, B) if H0 is None else jnp.result_type(A, B, H0)
    H = _recur(A, B, H0, reverse).astype(dtype)
    return H, LinearRecurrenceResiduals(A, B, H0, H)


def linear_recurrence_backward(
    residuals: LinearRecurrenceResiduals, dH: Array, *, reverse: bool = False
) -> tuple[Array, Array, Array | None]:
    """Pull dH back through h_t = a_t ∘ h_{t−1} + b_t.

        δ_t = dh_t + a_{t+1} ∘ δ_{t+1}          the same recurrence, walked the other way
        dA = Δ ∘ H_prev      dB = Δ      dH0 = a_1 ∘ δ_1

    Args:
      residuals: LinearRecurrenceResiduals of linear_recurrence_forward.
      dH: (batch, time, n) cotangent of H.
      reverse: the forward's.
    Returns:
      dA, dB (batch, time, n); dH0 (batch, n), or None where there was no H0.
    Raises:
      InputError: residuals of another rule; dH not of H's shape and dtype.
    Derivation: docs/derivations/sequences/linear_recurrence.md (Blelloch 1990; Martin, Cundy 2018)
    """
    A, B, H0, H = check_residuals("linear_recurrence_backward", residuals, LinearRecurrenceResiduals)
    check_cotangent("linear_recurrence_backward", dH, H.shape, H.dtype, "dH", "H")
    none = jnp.zeros_like(jnp.sum(A, axis=1), H.dtype)
    # The other way round, the decay that a step meets is the one of the step it comes from.
    Delta = _recur(entering(A.astype(H.dtype), none, None, not reverse), dH, None, not reverse)
    dA = Delta * entering(H, none if H0 is None else H0, None, reverse)
    first = -1 if reverse else 0
    dH0 = None if H0 is None else (A[:, first] * Delta[:, first]).astype(H0.dtype)
    return dA.astype(A.dtype), Delta.astype(B.dtype), dH0


linear_recurrence = Rule(linear_recurrence_forward, linear_recurrence_backward)


def _recur(A: Array, B: Array, H0: Array | None, reverse: bool) -> Array:
    """h_t = a_t ∘ h_{t−1} + b_t from zeros or from H0, in float32 at least."""

    def compose(first: Affine, second: Affine) -> Affine:
        """One affine map after the other: a′ (a h + b) + b′ = a′ a h + (a′ b + b′)."""
        (a, b), (a_, b_) = first, second
        return a_ * a, a_ * b + b_

    dtype = accumulator(A, B)
    P, S = jax.lax.associative_scan(compose, (A.astype(dtype), B.astype(dtype)), reverse=reverse, axis=1)
    return S if H0 is None else P * jnp.expand_dims(H0, 1) + S  # all maps up to step t in one: h_t = p_t ∘ h_0 + s_t
