"""Similarity losses: the rule of the same name, with its options."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["cosine_distance", "info_nce"]


def cosine_distance(*, epsilon: float = 1e-8) -> Loss:
    """C_b = Σ (1 − cos(a, y)), along the last axis."""
    return loss_from_rule(rules.cosine_distance, epsilon=epsilon)


def info_nce(
    temperature: float = 0.07,
    *,
    normalize: bool = True,
    epsilon: float = 1e-8,
    residuals: Literal["save", "recompute"] = "save",
) -> Loss:
    """Each query finds its own key among the batch's; the target, the keys, gets no gradient.

    The one loss whose examples interact: per-example folds refuse it.
    Where the keys are learned too, `rules.info_nce(queries, keys)` differentiates both.
    """
    return loss_from_rule(
        rules.info_nce,
        couples="info_nce couples the examples of a batch (a loss of each example alone does not)",
        temperature=temperature,
        normalize=normalize,
        epsilon=epsilon,
        residuals=residuals,
    )
