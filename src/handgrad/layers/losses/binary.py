"""Losses for binary classification: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["binary_cross_entropy", "focal_loss", "sigmoid_cross_entropy"]


def sigmoid_cross_entropy() -> Loss:
    """Binary cross-entropy of σ(logits)."""
    loss = loss_from_rule(rules.sigmoid_cross_entropy)
    return loss._replace(root=rules.sigmoid_cross_entropy_root, draw=rules.sigmoid_cross_entropy_draw)


def binary_cross_entropy() -> Loss:
    """Binary cross-entropy of probabilities; after a sigmoid its composed delta is a − y.

    Finite also where a sigmoid rounds to 0 or 1, but the delta is 0 there: prefer sigmoid_cross_entropy, from logits.
    """
    return loss_from_rule(rules.binary_cross_entropy)


def focal_loss(gamma: float = 2.0, *, alpha: float | None = None) -> Loss:
    """Binary cross-entropy of σ(logits) times (the probability of the wrong answer)^gamma."""
    return loss_from_rule(rules.focal_loss, gamma=gamma, alpha=alpha)
