"""linear_recurrence: features that fade, each at a pace of its own that is learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_params, check_residuals, check_shape
from handgrad.factors import Total
from handgrad.layers.layer import Layer
from handgrad.rules.sequences.linear_recurrence import linear_recurrence_backward, linear_recurrence_forward

__all__ = [
    "LinearRecurrenceParams",
    "linear_recurrence",
]

Array = jax.Array


class LinearRecurrenceParams(NamedTuple):
    """Parameters of `linear_recurrence`.

    Attributes:
      decay: (n,) logits of the decay: a = σ(decay).
    """

    decay: Any


class FadingResiduals(NamedTuple):
    """decay: the parameter; kept: the rule's residuals."""

    decay: Array
    kept: Any


def linear_recurrence(
    *, reverse: bool = False, init_decay: jax.nn.initializers.Initializer = jax.nn.initializers.normal(1.0)
) -> Layer:
    """h_t = σ(decay) ∘ h_{t−1} + x_t, from zeros, with parameters LinearRecurrenceParams(decay).

    For decays that depend on the input, as gated linear recurrences have them, take the rule itself.

    Args:
      reverse: from the last step to the first.
      init_decay: initializer of the logits, (key, shape, dtype) -> array.
    Raises:
      InputError: at trace time, params of another layer, and as linear_recurrence_forward and its backward.
    Derivation: docs/derivations/sequences/linear_recurrence.md
    """

    def init(key: Array, x: Any) -> LinearRecurrenceParams:
        check_array("linear_recurrence", "x", x, min_ndim=2)
        return LinearRecurrenceParams(init_decay(key, x.shape[-1:], jax.dtypes.canonicalize_dtype(x.dtype)))

    def forward(params: Any, x: Array, key: Array | None = None) -> tuple[Array, FadingResiduals]:
        check_params("linear_recurrence", params, LinearRecurrenceParams)
        check_array("linear_recurrence", "x", x, min_ndim=2)
        check_shape("linear_recurrence", "params.decay", params.decay, x.shape[-1:], "(one for each feature)")
        A = jnp.broadcast_to(jax.lax.logistic(params.decay), x.shape)
        H, kept = linear_recurrence_forward(A, x, reverse=reverse)
        return H, FadingResiduals(params.decay, kept)

    def backward(residuals: Any, dy: Array) -> tuple[Array, LinearRecurrenceParams]:
        decay, kept = check_residuals("linear_recurrence", residuals, FadingResiduals)
        dA, dX, _ = linear_recurrence_backward(kept, dy, reverse=reverse)
        return dX, LinearRecurrenceParams(Total(dA * kept.A * (1 - kept.A), decay.dtype))

    return Layer(init, forward, backward)
