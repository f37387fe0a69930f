"""The linear recurrence: one step after the other, or an associative scan over time, since affine maps compose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.sequences._recurrence import State, Steps, check_scan, entering
from handgrad.rules.sequences._walks import at, by_platform, first, walk

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
    A: Steps, B: Steps, H0: State | None = None, *, reverse: bool = False, associative: bool | None = None
) -> tuple[Steps, LinearRecurrenceResiduals]:
    """h_t = a_t ∘ h_{t−1} + b_t.

    Args:
      H0: the state before the first step; None is zeros.
      reverse: from the last step to the first: h_t = a_t ∘ h_{t+1} + b_t.
      associative: True for an associative scan, some 2 log₂(time) rounds of products over whole arrays; False for one
        step after the other, a third of the work; None takes the steps on a CPU, and the scan elsewhere.
    Derivation: docs/derivations/sequences/linear_recurrence.md (Blelloch 1990; Martin, Cundy 2018)
    """
    where = "linear_recurrence_forward"
    check_array(where, "A", A)
    if len(A.shape) != 3 or A.shape[1] == 0:
        raise InputError(f"{where}: A must have shape (batch, time, n), one step at least, got {describe(A)}")
    check_array(where, "B", B)
    check_shape(where, "B", B, A.shape, "like A")
    if H0 is not None:
        check_array(where, "H0", H0)
        check_shape(where, "H0", H0, (A.shape[0], A.shape[2]), "(one state for each example, as wide as A)")
    check_scan(where, reverse)
    _check_associative(where, associative)
    dtype = jnp.result_type(A, B) if H0 is None else jnp.result_type(A, B, H0)

    def by_scan(A: Steps, B: Steps, H0: State | None) -> Steps:
        return _recur(A, B, H0, reverse).astype(dtype)

    def in_turn(A: Steps, B: Steps, H0: State | None) -> Steps:
        def step(h: State, t: Array) -> tuple[State, tuple[State]]:
            h = at(A, t) * h + at(B, t)
            return h, (h,)

        return walk(step, first(H0, A + B), (jnp.zeros_like(A + B, dtype),), reverse, A, B)[1][0]

    H = by_platform(associative, by_scan, in_turn, A, B, H0)
    return H, LinearRecurrenceResiduals(A, B, H0, H)


def linear_recurrence_backward(
    residuals: LinearRecurrenceResiduals, dH: Steps, *, reverse: bool = False, associative: bool | None = None
) -> tuple[Steps, Steps, State | None]:
    """Pull dH back through h_t = a_t ∘ h_{t−1} + b_t.

        δ_t = dh_t + a_{t+1} ∘ δ_{t+1}          the same recurrence in the other direction
        dA = Δ ∘ H_prev      dB = Δ      dH0 = a_1 ∘ δ_1

    Derivation: docs/derivations/sequences/linear_recurrence.md
    """
    where = "linear_recurrence_backward"
    A, B, H0, H = check_residuals(where, residuals, LinearRecurrenceResiduals)
    check_cotangent(where, dH, H.shape, H.dtype, "dH", "H")
    _check_associative(where, associative)

    def by_scan(A: Steps, H: Steps, dH: Steps, H0: State | None) -> tuple[Steps, Steps, State]:
        none = jnp.zeros_like(jnp.sum(A, axis=1), H.dtype)
        # In the other direction, a step is multiplied by the decay of the step that it comes from.
        Delta = _recur(entering(A.astype(H.dtype), none, None, not reverse), dH, None, not reverse)
        dA = Delta * entering(H, none if H0 is None else H0, None, reverse)
        start = -1 if reverse else 0
        return dA.astype(A.dtype), Delta.astype(B.dtype), A[:, start] * Delta[:, start]

    def in_turn(A: Steps, H: Steps, dH: Steps, H0: State | None) -> tuple[Steps, Steps, State]:
        like, last = H + dH, A.shape[1] - 1  # A may be the same for all examples
        h0 = first(H0, like)

        def step(passed: State, t: Array) -> tuple[State, tuple[State, State]]:
            delta = at(dH, t) + passed
            before = jnp.where(t == last, h0, at(H, t + 1)) if reverse else jnp.where(t == 0, h0, at(H, t - 1))
            return at(A, t) * delta, (delta * before, delta)

        outputs = jnp.zeros_like(like, A.dtype), jnp.zeros_like(like, B.dtype)
        dh0, (dA, Delta) = walk(step, first(None, like), outputs, not reverse, A, H, dH)
        return dA, Delta, dh0

    dA, dB, dH0 = by_platform(associative, by_scan, in_turn, A, H, dH, H0)
    return dA, dB, None if H0 is None else dH0.astype(H0.dtype)


linear_recurrence = Rule(linear_recurrence_forward, linear_recurrence_backward)


def _recur(A: Steps, B: Steps, H0: State | None, reverse: bool) -> Steps:
    """h_t = a_t ∘ h_{t−1} + b_t from zeros or from H0, in float32 at least."""

    def compose(one: Affine, two: Affine) -> Affine:
        """One affine map after the other: a′ (a h + b) + b′ = a′ a h + (a′ b + b′)."""
        (a, b), (a_, b_) = one, two
        return a_ * a, a_ * b + b_

    dtype = accumulator(A, B)
    P, S = jax.lax.associative_scan(compose, (A.astype(dtype), B.astype(dtype)), reverse=reverse, axis=1)
    return S if H0 is None else P * jnp.expand_dims(H0, 1) + S  # all maps up to step t in one: h_t = p_t ∘ h_0 + s_t


def _check_associative(where: str, associative: bool | None) -> None:
    if not (associative is None or isinstance(associative, bool)):
        raise InputError(f"{where}: associative must be True, False or None, got {associative!r}")
