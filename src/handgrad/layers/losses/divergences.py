"""Divergences of a prediction from its target: the rule of the same name, with its options."""

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["gaussian_nll", "kl_divergence", "poisson_loss"]


def kl_divergence(*, log_target: bool = False) -> Loss:
    """C_b = Σ q (log q − ℓ) of predicted log-probabilities ℓ."""
    return loss_from_rule(rules.kl_divergence, log_target=log_target)


def poisson_loss(*, log_input: bool = True, full: bool = False, epsilon: float = 1e-8) -> Loss:
    """C_b = Σ (e^a − y a), of counts y."""
    return loss_from_rule(rules.poisson_loss, log_input=log_input, full=full, epsilon=epsilon)


def gaussian_nll(*, full: bool = False, epsilon: float = 1e-6) -> Loss:
    """C_b = ½ Σ (log v + (a − y)² / v); the prediction is a pair (mean, variance)."""
    forward, backward = rules.gaussian_nll.with_options(full=full, epsilon=epsilon)

    def of_pair(prediction: tuple[Array, Array], target: Array) -> tuple[Array, PyTree]:
        if not (isinstance(prediction, tuple) and len(prediction) == 2):
            raise InputError(f"gaussian_nll: prediction must be a pair (mean, variance), got {describe(prediction)}")
        return forward(*prediction, target)

    return Loss(of_pair, lambda residuals, dloss: backward(residuals, dloss)[:2])
