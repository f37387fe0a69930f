"""linear_recurrence: features that decay, each at its own learned rate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import check_array, check_params, check_residuals, check_shape
from handgrad.factors import Total
from handgrad.layers.layer import Layer
from handgrad.rules.sequences.linear_recurrence import LinearRecurrenceResiduals

__all__ = ["LinearRecurrenceParams", "linear_recurrence"]


class LinearRecurrenceParams(NamedTuple):
    """Parameters of `linear_recurrence`.

    Attributes:
      decay: (n,) logits of the decay: a = σ(decay).
    """

    decay: Array


class DecayResiduals(NamedTuple):
    """decay: the parameter; kept: the rule's residuals."""

    decay: Array
    kept: LinearRecurrenceResiduals


def linear_recurrence(
    *, reverse: bool = False, init_decay: jax.nn.initializers.Initializer = jax.nn.initializers.normal(1.0)
) -> Layer:
    """h_t = σ(decay) ∘ h_{t−1} + x_t, from zeros, with parameters LinearRecurrenceParams(decay).

    For decays that depend on the input, as gated linear recurrences have them, take the rule itself.

    Args:
      reverse: from the last step to the first.
      init_decay: initializer of the logits, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/linear_recurrence.md
    """
    rule = rules.linear_recurrence.with_options(reverse=reverse)

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> LinearRecurrenceParams:
        check_array("linear_recurrence", "x", x, min_ndim=2)
        return LinearRecurrenceParams(init_decay(key, x.shape[-1:], jax.dtypes.canonicalize_dtype(x.dtype)))

    def forward(
        params: LinearRecurrenceParams, x: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, DecayResiduals]:
        check_params("linear_recurrence", params, LinearRecurrenceParams)
        check_array("linear_recurrence", "x", x, min_ndim=2)
        check_shape("linear_recurrence", "params.decay", params.decay, x.shape[-1:], "(one for each feature)")
        A = jnp.broadcast_to(jax.lax.logistic(params.decay), x.shape)
        H, kept = rule.forward(A, x)
        return H, DecayResiduals(params.decay, kept)

    def backward(residuals: DecayResiduals, dy: Array) -> tuple[Array, LinearRecurrenceParams]:
        decay, kept = check_residuals("linear_recurrence", residuals, DecayResiduals)
        dA, dX, _ = rule.backward(kept, dy)
        return dX, LinearRecurrenceParams._make([Total(dA * kept.A * (1 - kept.A), decay.dtype)])

    return Layer(init, forward, backward)
