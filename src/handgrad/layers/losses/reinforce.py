"""reinforce_loss: log-probabilities of what was done, against what came of it."""

from typing import NamedTuple

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses._actions import Advantages, Mask, Reduction

__all__ = ["ReturnsTarget", "reinforce_loss"]


class ReturnsTarget(NamedTuple):
    """What `reinforce_loss` weights log-probabilities (batch, ...) of actions by.

    Attributes:
      returns: of each action, each sequence or each example.
      baseline: what was to be expected; None for 0.
      mask: which actions count; None: all.
    """

    returns: Advantages
    baseline: Advantages | None = None
    mask: Mask | None = None


def reinforce_loss(*, reduction: Reduction = "sum") -> Loss:
    """C_b = −Σ w (r − b) ℓ, against a ReturnsTarget: its gradient estimates that of the expected return."""
    forward, backward = rules.reinforce_loss.with_options(reduction=reduction)

    def of_target(prediction: Array, target: ReturnsTarget) -> tuple[Array, PyTree]:
        if not isinstance(target, ReturnsTarget):
            raise InputError(f"reinforce_loss: target must be a ReturnsTarget, got {describe(target)}")
        return forward(prediction, *target)

    return Loss(of_target, lambda residuals, dloss: backward(residuals, dloss)[0])
