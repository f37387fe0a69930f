"""ctc_loss: a loss whose target is a sequence of labels, and two lengths."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses.ctc import CtcLossResiduals, ctc_loss_backward, ctc_loss_forward

__all__ = ["CtcTarget", "ctc_loss"]


class CtcTarget(NamedTuple):
    """What `ctc_loss` compares logits (batch, time, classes) with.

    Attributes:
      labels: those from label_lengths on are padding.
      input_lengths: how many frames of the logits are each example's.
      label_lengths: how many labels are.
    """

    labels: Integer[Array, "batch max_labels"]
    input_lengths: Integer[Array, " batch"]
    label_lengths: Integer[Array, " batch"]


def ctc_loss(*, blank: int = 0, residuals: Literal["save", "recompute"] = "save") -> Loss:
    """C_b = −log p(labels | logits) over all alignments, against a CtcTarget.

    Args:
      blank: the class that stands for no label.
      residuals: "save" keeps half of the recursion, "recompute" computes it again.
    Derivation: docs/derivations/losses/ctc.md
    """

    def forward(prediction: Array, target: CtcTarget) -> tuple[Array, CtcLossResiduals]:
        if not isinstance(target, CtcTarget):
            raise InputError(f"ctc_loss: target must be a CtcTarget, got {describe(target)}")
        return ctc_loss_forward(prediction, *target, blank=blank, residuals=residuals)

    def backward(kept: CtcLossResiduals, dloss: Float[Array, " batch"]) -> Array:
        return ctc_loss_backward(kept, dloss, blank=blank)[0]

    def counts(kept: CtcLossResiduals) -> Bool[Array, "batch time"]:
        frames = jnp.expand_dims(jnp.arange(kept.Z.shape[1]), 0)
        return frames < jnp.expand_dims(jnp.asarray(kept.input_lengths), 1)

    return Loss(forward, backward, counts=counts)
