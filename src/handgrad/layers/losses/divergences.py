"""Divergences of a prediction from its target: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["kl_divergence", "poisson_loss"]


def kl_divergence(*, log_target: bool = False) -> Loss:
    """C_b = Σ q (log q − ℓ) of predicted log-probabilities ℓ."""
    return loss_from_rule(rules.kl_divergence, log_target=log_target)


def poisson_loss(*, log_input: bool = True, full: bool = False, epsilon: float = 1e-8) -> Loss:
    """C_b = Σ (e^a − y a), of counts y."""
    return loss_from_rule(rules.poisson_loss, log_input=log_input, full=full, epsilon=epsilon)
