"""dice_loss: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["dice_loss"]


def dice_loss(smooth: float = 1.0, *, squares: bool = False, per_class: bool = False) -> Loss:
    """C_b = 1 − (2 Σ a y + s) / (Σ a + Σ y + s), of probabilities a."""
    return loss_from_rule(rules.dice_loss, smooth=smooth, squares=squares, per_class=per_class)
