"""wasserstein_distance: the rule of the same name, with its option."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["wasserstein_distance"]


def wasserstein_distance(order: Literal[1, 2] = 1) -> Loss:
    """C_b = Σ (1/n) Σ_i |a_(i) − y_(i)|^order of two samples along the last axis, sorted."""
    return loss_from_rule(rules.wasserstein_distance, order=order)
