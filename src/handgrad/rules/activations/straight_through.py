"""Rounding and signs in the forward pass, which have no slope, and a slope that trains in the backward pass.

These are estimators: the backward pass is not the derivative, which is 0, but that of another function by design.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_cotangent, check_positive, check_residuals
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules._straight_through import straight_through

__all__ = [
    "StraightThroughRoundResiduals",
    "StraightThroughSignResiduals",
    "straight_through_round",
    "straight_through_round_backward",
    "straight_through_round_forward",
    "straight_through_sign",
    "straight_through_sign_backward",
    "straight_through_sign_forward",
]

Elements = Float[Array, "batch *rest"]


class StraightThroughRoundResiduals(NamedTuple):
    """outline: X's shape and dtype in an array of no bytes."""

    outline: Float[Array, "batch 0 *rest"]


def straight_through_round_forward(X: Elements) -> tuple[Elements, StraightThroughRoundResiduals]:
    """Y = X rounded to whole numbers, ½ to the even one, as jnp.round.

    Derivation: docs/derivations/activations/straight_through.md (Bengio et al. 2013)
    """
    check_array("straight_through_round_forward", "X", X, min_ndim=1)
    return straight_through(jnp.round(X), X), StraightThroughRoundResiduals(outline(X))


def straight_through_round_backward(residuals: StraightThroughRoundResiduals, dY: Elements) -> tuple[Elements]:
    """Pass dY straight through, as if Y were X.

        dX = dY

    Derivation: docs/derivations/activations/straight_through.md
    """
    (empty,) = check_residuals("straight_through_round_backward", residuals, StraightThroughRoundResiduals)
    X = outlined(empty)
    check_cotangent("straight_through_round_backward", dY, X.shape, X.dtype)
    return (dY,)


straight_through_round = Rule(straight_through_round_forward, straight_through_round_backward)


class StraightThroughSignResiduals(NamedTuple):
    """X: the input; a bit of it would do, but it is the previous layer's output."""

    X: Elements


def straight_through_sign_forward(X: Elements, *, window: float = 1.0) -> tuple[Elements, StraightThroughSignResiduals]:
    """Y = 1 where x ≥ 0, −1 where x < 0: a binary activation or weight, which is never 0; NaN stays NaN.

    Args:
      window: c > 0, in the backward pass alone: only |x| ≤ c is given a slope.
    Derivation: docs/derivations/activations/straight_through.md (Hubara et al. 2016)
    """
    check_array("straight_through_sign_forward", "X", X, min_ndim=1)
    check_positive("straight_through_sign_forward", "window", window)
    Y = jnp.where(X >= 0, 1, jnp.where(X < 0, -1, X)).astype(X.dtype)
    return straight_through(Y, jnp.where(jnp.abs(X) <= window, X, 0)), StraightThroughSignResiduals(X)


def straight_through_sign_backward(
    residuals: StraightThroughSignResiduals, dY: Elements, *, window: float = 1.0
) -> tuple[Elements]:
    """Pass dY through where |x| ≤ c, as if Y were X there and constant elsewhere.

        dX = dY ∘ [|X| ≤ c]

    Derivation: docs/derivations/activations/straight_through.md
    """
    (X,) = check_residuals("straight_through_sign_backward", residuals, StraightThroughSignResiduals)
    check_cotangent("straight_through_sign_backward", dY, X.shape, X.dtype)
    return (jnp.where(jnp.abs(X) <= window, dY, 0),)


straight_through_sign = Rule(straight_through_sign_forward, straight_through_sign_backward)
