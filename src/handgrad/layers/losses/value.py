"""ppo_value_loss: values of states, against what came of them and what they were."""

from typing import NamedTuple

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses._actions import Actions, Advantages, Mask, Reduction

__all__ = ["ValueTarget", "ppo_value_loss"]


class ValueTarget(NamedTuple):
    """What `ppo_value_loss` compares values (batch, ...) with.

    Attributes:
      old: values when the actions were drawn.
      returns: of each state, each sequence or each example.
      mask: which states count; None: all.
    """

    old: Actions
    returns: Advantages
    mask: Mask | None = None


def ppo_value_loss(*, clip: float = 0.2, reduction: Reduction = "mean") -> Loss:
    """C_b = ½ Σ w max((v − r)², (u − r)²), u within ±clip of the old value, against a ValueTarget."""
    forward, backward = rules.ppo_value_loss.with_options(clip=clip, reduction=reduction)

    def of_target(prediction: Array, target: ValueTarget) -> tuple[Array, PyTree]:
        if not isinstance(target, ValueTarget):
            raise InputError(f"ppo_value_loss: target must be a ValueTarget, got {describe(target)}")
        return forward(prediction, *target)

    return Loss(of_target, lambda residuals, dloss: backward(residuals, dloss)[0])
