"""ctc_loss: a loss whose target is a sequence of labels, and two lengths."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses.ctc import ctc_loss_backward, ctc_loss_forward

__all__ = [
    "CtcTarget",
    "ctc_loss",
]

Array = jax.Array


class CtcTarget(NamedTuple):
    """What `ctc_loss` compares logits (batch, time, classes) with.

    Attributes:
      labels: (batch, max_labels) integers; those from label_lengths on are padding.
      input_lengths: (batch,) integers, how many frames of the logits are each example's.
      label_lengths: (batch,) integers, how many labels are.
    """

    labels: Any
    input_lengths: Any
    label_lengths: Any


def ctc_loss(*, blank: int = 0, residuals: str = "save") -> Loss:
    """C_b = −log p(labels | logits) over all alignments, against a CtcTarget.

    Args:
      blank: the class that stands for no label.
      residuals: "save" keeps half of the recursion, "recompute" computes it again.
    Raises:
      InputError: at trace time, a target that is no CtcTarget, and as ctc_loss_forward and ctc_loss_backward.
    Derivation: docs/derivations/losses/ctc.md
    """

    def forward(prediction: Array, target: CtcTarget) -> tuple[Array, Any]:
        if not isinstance(target, CtcTarget):
            raise InputError(f"ctc_loss: target must be a CtcTarget, got {describe(target)}")
        return ctc_loss_forward(prediction, *target, blank=blank, residuals=residuals)

    def backward(kept: Any, dloss: Array) -> Array:
        return ctc_loss_backward(kept, dloss, blank=blank)[0]

    def counts(kept: Any) -> Array:
        frames = jnp.expand_dims(jnp.arange(kept.Z.shape[1]), 0)
        return frames < jnp.expand_dims(jnp.asarray(kept.input_lengths), 1)

    return Loss(forward, backward, counts=counts)
