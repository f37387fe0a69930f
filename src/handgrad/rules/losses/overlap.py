"""The Dice loss: how far two sets overlap, where most elements are in neither, as in the segmentation of images."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import InputError, check_flags, check_positive, check_residuals, describe
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

__all__ = ["DiceLossResiduals", "dice_loss", "dice_loss_backward", "dice_loss_forward"]


class DiceLossResiduals(NamedTuple):
    """The probabilities A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def dice_loss_forward(
    A: Prediction, Y: Target, *, smooth: float = 1.0, squares: bool = False, per_class: bool = False
) -> tuple[Losses, DiceLossResiduals]:
    """C_b = 1 − (2 Σ a y + s) / (Σ a + Σ y + s) for each example, of probabilities a.

    Args:
      A: probabilities in [0, 1], as a sigmoid makes them.
      Y: 0 or 1, or probabilities.
      smooth: s > 0: an example with nothing in either set costs 0.
      squares: True takes Σ a² + Σ y² for Σ a + Σ y.
      per_class: True takes the sums for each class, along the last axis, and adds up the classes' losses; False takes
        them over all of an example.
    Derivation: docs/derivations/losses/overlap.md (Milletari et al. 2016)
    """
    where = "dice_loss_forward"
    a, y = checked(where, "probabilities A", A, Y)
    check_positive(where, "smooth", smooth)
    check_flags(where, squares=squares, per_class=per_class)
    if A.ndim < 2 + per_class:
        axes = "(batch, ..., classes), with an axis between," if per_class else "(batch, ...),"
        raise InputError(f"{where}: the probabilities A must have shape {axes} got {describe(A)}")
    size = _size(a, y, squares, per_class) + smooth
    apart = jnp.square(a - y) if squares else a * (1 - y) + (1 - a) * y
    C = _summed(apart, per_class) / size
    return per_example(C, jnp.result_type(A, Y)), DiceLossResiduals(A, Y)


def dice_loss_backward(
    residuals: DiceLossResiduals, dC: Losses, *, smooth: float = 1.0, squares: bool = False, per_class: bool = False
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the Dice loss, d = (2 Σ a y + s) / u and u = Σ a + Σ y + s.

        dA = dC ∘ (d − 2 Y) / u      dY = dC ∘ (d − 2 A) / u
        dA = 2 dC ∘ (d A − Y) / u      dY = 2 dC ∘ (d Y − A) / u      with squares

    Derivation: docs/derivations/losses/overlap.md
    """
    A, Y = check_residuals("dice_loss_backward", residuals, DiceLossResiduals)
    dC = to_elements("dice_loss_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    size = _size(a, y, squares, per_class) + smooth
    D = (2 * _summed(a * y, per_class) + smooth) / size
    of_A, of_Y = (2 * (D * a - y), 2 * (D * y - a)) if squares else (D - 2 * y, D - 2 * a)
    return pulled(dC, of_A / size, A), target_cotangent(dC, of_Y / size, Y)


dice_loss = Rule(dice_loss_forward, dice_loss_backward)


def _size(a: Array, y: Array, squares: bool, per_class: bool) -> Array:
    return _summed(a * a + y * y if squares else a + y, per_class)


def _summed(A: Array, per_class: bool) -> Array:
    """Over each example, or over each class of it; the axes stay."""
    return jnp.sum(A, axis=tuple(range(1, A.ndim - per_class)), keepdims=True)
