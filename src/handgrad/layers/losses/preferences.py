"""Losses of a preference: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["dpo_loss", "ipo_loss"]


def dpo_loss(beta: float = 0.1, *, label_smoothing: float = 0.0) -> Loss:
    """C_b = −log σ(β h), h = Σ (ℓ − r) of the chosen answer − that of the rejected one.

    Prediction and target are log-probabilities (batch, 2, ...) by the policy and by the reference model, the chosen
    answer first. Tokens that don't count are 0 in both, as `linear_log_probability` with an ignore_index makes them.
    """
    return loss_from_rule(rules.dpo_loss, beta=beta, label_smoothing=label_smoothing)


def ipo_loss(beta: float = 0.1) -> Loss:
    """C_b = (h − 1 / (2 β))², of the same."""
    return loss_from_rule(rules.ipo_loss, beta=beta)
