"""The linear recurrence: an associative scan over time, since affine maps compose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._recurrence import State, Steps, check_scan, entering

__all__ = ["LinearRecurrenceResiduals", "linear_recurrence", "linear_recurrence_backward", "linear_recurrence_forward"]

Affine = tuple[Array, Array]


class LinearRecurrenceResiduals(NamedTuple):
    """The arguments and the output, by reference: A and, after H0, H are what the cotangents are multiplied by.

    B is kept for its dtype alone.
    """

    A: Steps
    B: Steps
    H0: State | None
    H: Steps


def linear_recurrence_forward(
    A: Steps, B: Steps, H0: State | None = None, *, reverse: bool = False
) -> tuple[Steps, LinearRecurrenceResiduals]:
    """h_t = a_t ∘ h_{t−1} + b_t, by an associative scan: some 2 log₂(time) rounds of products instead of time steps.

    Args:
      H0: the state before the first step; None is zeros.
      reverse: from the last step to the first: h_t = a_t ∘ h_{t+1} + b_t.
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
    check_scan(where, reverse)
    dtype = jnp.result_type(A, B) if H0 is None else jnp.result_type(A, B, H0)
    H = _recur(A, B, H0, reverse).astype(dtype)
    return H, LinearRecurrenceResiduals(A, B, H0, H)


def linear_recurrence_backward(
    residuals: LinearRecurrenceResiduals, dH: Steps, *, reverse: bool = False
) -> tuple[Steps, Steps, State | None]:
    """Pull dH back through h_t = a_t ∘ h_{t−1} + b_t.

        δ_t = dh_t + a_{t+1} ∘ δ_{t+1}          the same recurrence in the other direction
        dA = Δ ∘ H_prev      dB = Δ      dH0 = a_1 ∘ δ_1

    Derivation: docs/derivations/sequences/linear_recurrence.md
    """
    A, B, H0, H = check_residuals("linear_recurrence_backward", residuals, LinearRecurrenceResiduals)
    check_cotangent("linear_recurrence_backward", dH, H.shape, H.dtype, "dH", "H")
    none = jnp.zeros_like(jnp.sum(A, axis=1), H.dtype)
    # In the other direction, a step is multiplied by the decay of the step that it comes from.
    Delta = _recur(entering(A.astype(H.dtype), none, None, not reverse), dH, None, not reverse)
    dA = Delta * entering(H, none if H0 is None else H0, None, reverse)
    first = -1 if reverse else 0
    dH0 = None if H0 is None else (A[:, first] * Delta[:, first]).astype(H0.dtype)
    return dA.astype(A.dtype), Delta.astype(B.dtype), dH0


linear_recurrence = Rule(linear_recurrence_forward, linear_recurrence_backward)


def _recur(A: Steps, B: Steps, H0: State | None, reverse: bool) -> Steps:
    """h_t = a_t ∘ h_{t−1} + b_t from zeros or from H0, in float32 at least."""

    def compose(first: Affine, second: Affine) -> Affine:
        """One affine map after the other: a′ (a h + b) + b′ = a′ a h + (a′ b + b′)."""
        (a, b), (a_, b_) = first, second
        return a_ * a, a_ * b + b_

    dtype = accumulator(A, B)
    P, S = jax.lax.associative_scan(compose, (A.astype(dtype), B.astype(dtype)), reverse=reverse, axis=1)
    return S if H0 is None else P * jnp.expand_dims(H0, 1) + S  # all maps up to step t in one: h_t = p_t ∘ h_0 + s_t
