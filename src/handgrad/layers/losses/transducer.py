"""transducer_loss: a loss over the lattice of frames and labels that a joint network spans."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses.transducer import TransducerLossResiduals, transducer_loss_backward, transducer_loss_forward

__all__ = ["TransducerTarget", "transducer_loss"]


class TransducerTarget(NamedTuple):
    """What `transducer_loss` compares logits (batch, time, max_labels + 1, classes) with.

    Attributes:
      labels: those from label_lengths on are padding.
      input_lengths: how many frames of the logits are each example's.
      label_lengths: how many labels are.
    """

    labels: Integer[Array, "batch max_labels"]
    input_lengths: Integer[Array, " batch"]
    label_lengths: Integer[Array, " batch"]


def transducer_loss(*, blank: int = 0, residuals: Literal["save", "recompute"] = "save") -> Loss:
    """C_b = −log p(labels | logits) over all paths through the lattice, against a TransducerTarget.

    Args:
      blank: the class that stands for the next frame.
      residuals: "save" keeps half of the recursion and each node's softmax sum, "recompute" computes them again.
    Derivation: docs/derivations/losses/transducer.md
    """

    def forward(prediction: Array, target: TransducerTarget) -> tuple[Array, TransducerLossResiduals]:
        if not isinstance(target, TransducerTarget):
            raise InputError(f"transducer_loss: target must be a TransducerTarget, got {describe(target)}")
        return transducer_loss_forward(prediction, *target, blank=blank, residuals=residuals)

    def backward(kept: TransducerLossResiduals, dloss: Float[Array, " batch"]) -> Array:
        return transducer_loss_backward(kept, dloss, blank=blank)[0]

    def counts(kept: TransducerLossResiduals) -> Bool[Array, "batch time states"]:
        t, u = (
            jnp.expand_dims(jnp.arange(n), axes) for n, axes in zip(kept.Z.shape[1:3], ((0, 2), (0, 1)), strict=True)
        )
        frames, labels = (jnp.expand_dims(jnp.asarray(a), (1, 2)) for a in (kept.input_lengths, kept.label_lengths))
        return (t < frames) & (u <= labels)

    return Loss(forward, backward, counts=counts)
