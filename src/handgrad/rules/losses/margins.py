"""Losses with a margin: the hinge loss charges a right answer too, unless it is right by 1."""

from typing import NamedTuple

import jax.numpy as jnp

from handgrad.checks import check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import (
    Losses,
    Prediction,
    Target,
    checked,
    counted,
    per_example,
    pulled,
    target_cotangent,
    to_elements,
)

__all__ = ["HingeLossResiduals", "hinge_loss", "hinge_loss_backward", "hinge_loss_forward"]


class HingeLossResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def hinge_loss_forward(A: Prediction, Y: Target) -> tuple[Losses, HingeLossResiduals]:
    """C_b = Σ max(0, 1 − y a) for each example, of the outputs a of a decision function; y is −1 or 1.

    Derivation: docs/derivations/losses/margins.md (Cortes and Vapnik 1995)
    """
    a, y = checked("hinge_loss_forward", "prediction A", A, Y)
    return per_example(jnp.maximum(0, 1 - y * a), jnp.result_type(A, Y)), HingeLossResiduals(A, Y)


def hinge_loss_backward(residuals: HingeLossResiduals, dC: Losses) -> tuple[Prediction, Target | None]:
    """Pull dC back through the hinge loss; where y a = 1, half the slope, as jnp.maximum has it for a tie.

        dA = −dC ∘ Y ∘ H      dY = −dC ∘ A ∘ H      H = [Y ∘ A < 1], ½ where it is 1

    Derivation: docs/derivations/losses/margins.md
    """
    A, Y = check_residuals("hinge_loss_backward", residuals, HingeLossResiduals)
    dC = to_elements("hinge_loss_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    H = (1 + jnp.sign(1 - y * a)) / 2
    return pulled(-dC, y * H, A), target_cotangent(-dC, counted(H, a) * H, Y)


hinge_loss = Rule(hinge_loss_forward, hinge_loss_backward)
