"""Margin losses: the rule of the same name. Where a loss compares several predictions, they are along axis 1."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_array, describe
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = ["hinge_loss", "margin_ranking_loss", "triplet_loss"]


def hinge_loss() -> Loss:
    """C_b = Σ max(0, 1 − y a), y being −1 or 1."""
    return loss_from_rule(rules.hinge_loss)


def margin_ranking_loss(margin: float = 0.0) -> Loss:
    """C_b = Σ max(0, margin − y (a − b)) of two scores, a at prediction[:, 0] and b at prediction[:, 1].

    The target says which is to be above: 1 for a, −1 for b; it has the prediction's shape without axis 1.
    """
    forward, backward = rules.margin_ranking_loss.with_options(margin=margin)

    def of_two(prediction: Array, target: Array) -> tuple[Array, PyTree]:
        return forward(*_along_axis_1("margin_ranking_loss", prediction, 2), target)

    return Loss(of_two, lambda residuals, dloss: jnp.stack(backward(residuals, dloss)[:2], axis=1))


def triplet_loss(margin: float = 1.0) -> Loss:
    """C_b = Σ max(0, ‖a − p‖ − ‖a − n‖ + margin) of an anchor, a positive and a negative along axis 1.

    The target is not read: any array of the batch, of the negatives' labels say.
    """
    forward, backward = rules.triplet_loss.with_options(margin=margin)

    def of_three(prediction: Array, target: PyTree) -> tuple[Array, PyTree]:
        return forward(*_along_axis_1("triplet_loss", prediction, 3))

    return Loss(of_three, lambda residuals, dloss: jnp.stack(backward(residuals, dloss), axis=1))


def _along_axis_1(where: str, prediction: Array, n: int) -> list[Array]:
    check_array(where, "prediction", prediction, min_ndim=2)
    if prediction.shape[1] != n:
        raise InputError(f"{where}: prediction must have shape (batch, {n}, ...), got {describe(prediction)}")
    return [prediction[:, i] for i in range(n)]
