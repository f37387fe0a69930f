"""Losses of the error E = A − Y, which the backward pass recomputes from the arguments.

Every loss gives one number for each example, the sum over all its other axes; examples are weighted by the cotangent.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import check_positive, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import (
    Losses,
    Prediction,
    Target,
    checked,
    per_example,
    pulled,
    target_cotangent,
    to_elements,
)

__all__ = [
    "AbsoluteErrorResiduals",
    "HuberLossResiduals",
    "L2LossResiduals",
    "SquaredErrorResiduals",
    "absolute_error",
    "absolute_error_backward",
    "absolute_error_forward",
    "huber_loss",
    "huber_loss_backward",
    "huber_loss_forward",
    "l2_loss",
    "l2_loss_backward",
    "l2_loss_forward",
    "squared_error",
    "squared_error_backward",
    "squared_error_forward",
]


class SquaredErrorResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def squared_error_forward(A: Prediction, Y: Target) -> tuple[Losses, SquaredErrorResiduals]:
    """C_b = Σ (a − y)² for each example, without a ½.

    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("squared_error_forward", A, Y)
    return per_example(E**2, jnp.result_type(A, Y)), SquaredErrorResiduals(A, Y)


def squared_error_backward(residuals: SquaredErrorResiduals, dC: Losses) -> tuple[Prediction, Target | None]:
    """Pull dC back through C_b = Σ (a − y)².

        dA = 2 dC ∘ E      dY = −dA

    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("squared_error_backward", residuals, SquaredErrorResiduals)
    return _cotangents("squared_error_backward", A, Y, _difference(A, Y), dC, scale=2.0)


squared_error = Rule(squared_error_forward, squared_error_backward)


class L2LossResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def l2_loss_forward(A: Prediction, Y: Target) -> tuple[Losses, L2LossResiduals]:
    """C_b = ½ Σ (a − y)² for each example: Nielsen's quadratic cost.

    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("l2_loss_forward", A, Y)
    return per_example(E * (E / 2), jnp.result_type(A, Y)), L2LossResiduals(A, Y)


def l2_loss_backward(residuals: L2LossResiduals, dC: Losses) -> tuple[Prediction, Target | None]:
    """Pull dC back through C_b = ½ Σ (a − y)².

        dA = dC ∘ E      dY = −dA

    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("l2_loss_backward", residuals, L2LossResiduals)
    return _cotangents("l2_loss_backward", A, Y, _difference(A, Y), dC)


l2_loss = Rule(l2_loss_forward, l2_loss_backward)


class AbsoluteErrorResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def absolute_error_forward(A: Prediction, Y: Target) -> tuple[Losses, AbsoluteErrorResiduals]:
    """C_b = Σ |a − y| for each example.

    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("absolute_error_forward", A, Y)
    return per_example(E * jnp.sign(E), jnp.result_type(A, Y)), AbsoluteErrorResiduals(A, Y)


def absolute_error_backward(residuals: AbsoluteErrorResiduals, dC: Losses) -> tuple[Prediction, Target | None]:
    """Pull dC back through C_b = Σ |a − y|, with slope 0 where a = y (jnp.abs itself takes 1 there).

        dA = dC ∘ sign(E)      dY = −dA

    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("absolute_error_backward", residuals, AbsoluteErrorResiduals)
    return _cotangents("absolute_error_backward", A, Y, jnp.sign(_difference(A, Y)), dC)


absolute_error = Rule(absolute_error_forward, absolute_error_backward)


class HuberLossResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def huber_loss_forward(A: Prediction, Y: Target, *, delta: float = 1.0) -> tuple[Losses, HuberLossResiduals]:
    """C_b = Σ ½ e² where |e| ≤ δ, δ (|e| − ½ δ) elsewhere, for each example.

    Args:
      delta: δ > 0, in units of A: where the parabola turns into lines.
    Derivation: docs/derivations/losses/regression.md (Huber 1964)
    """
    check_positive("huber_loss_forward", "delta", delta)
    E = _error("huber_loss_forward", A, Y)
    inside = jnp.clip(E, -delta, delta)
    return per_example(inside * (E - inside / 2), jnp.result_type(A, Y)), HuberLossResiduals(A, Y)


def huber_loss_backward(
    residuals: HuberLossResiduals, dC: Losses, *, delta: float = 1.0
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the Huber loss; the slope is continuous at ±δ.

        dA = dC ∘ clip(E, −δ, δ)      dY = −dA

    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("huber_loss_backward", residuals, HuberLossResiduals)
    return _cotangents("huber_loss_backward", A, Y, jnp.clip(_difference(A, Y), -delta, delta), dC)


huber_loss = Rule(huber_loss_forward, huber_loss_backward)


def _error(where: str, A: Prediction, Y: Target) -> Prediction:
    a, y = checked(where, "prediction A", A, Y)
    return a - y


def _difference(A: Prediction, Y: Target) -> Prediction:
    a, y = wide(A, Y)
    return a - y


def _cotangents(
    where: str, A: Prediction, Y: Target, slope: Array, dC: Losses, scale: float = 1.0
) -> tuple[Prediction, Target | None]:
    """dA and dY of a loss of A − Y: dC times the slope, and the same with the other sign."""
    dC = scale * to_elements(where, dC, A, jnp.result_type(A, Y))
    return pulled(dC, slope, A), target_cotangent(-dC, slope, Y)
