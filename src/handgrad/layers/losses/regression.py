"""Losses of the error of a prediction: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["absolute_error", "huber_loss", "l2_loss", "squared_error"]


def squared_error() -> Loss:
    """C_b = Σ (a − y)²."""
    loss = loss_from_rule(rules.squared_error)
    return loss._replace(root=rules.squared_error_root, draw=rules.squared_error_draw)


def l2_loss() -> Loss:
    """C_b = ½ Σ (a − y)²: Nielsen's quadratic cost."""
    loss = loss_from_rule(rules.l2_loss)
    return loss._replace(root=rules.l2_loss_root, draw=rules.l2_loss_draw)


def absolute_error() -> Loss:
    """C_b = Σ |a − y|."""
    return loss_from_rule(rules.absolute_error)


def huber_loss(delta: float = 1.0) -> Loss:
    """C_b = Σ ½ e² where |e| ≤ delta, delta (|e| − ½ delta) elsewhere, e = a − y."""
    return loss_from_rule(rules.huber_loss, delta=delta)
