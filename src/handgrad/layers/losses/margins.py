"""hinge_loss: the rule of the same name."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["hinge_loss"]


def hinge_loss() -> Loss:
    """C_b = Σ max(0, 1 − y a), y being −1 or 1."""
    return loss_from_rule(rules.hinge_loss)
