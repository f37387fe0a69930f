"""Losses that compare numbers with numbers. Each keeps its own arguments and takes the error E = A − Y again.

Every loss gives one number for each example, the sum over all its other axes; how examples are weighted is not its
business but the cotangent's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_positive, check_residuals, check_target
from handgrad.rules.losses._losses import per_example, pulled, target_cotangent, to_elements, wide
from handgrad.rules.rule import Rule

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

Array = jax.Array


class SquaredErrorResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) prediction.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def squared_error_forward(A: Array, Y: Array) -> tuple[Array, SquaredErrorResiduals]:
    """C_b = Σ (a − y)² for each example: the question's own C, without a ½.

    Args:
      A: (batch, ...) prediction, floating point.
      Y: (batch, ...) target of A's shape; of integers too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("squared_error_forward", A, Y)
    return per_example(E**2, jnp.result_type(A, Y)), SquaredErrorResiduals(A, Y)


def squared_error_backward(residuals: SquaredErrorResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through C_b = Σ (a − y)².

        dA = 2 dC ∘ E      dY = −dA

    Args:
      residuals: SquaredErrorResiduals of squared_error_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("squared_error_backward", residuals, SquaredErrorResiduals)
    return _cotangents("squared_error_backward", A, Y, _difference(A, Y), dC, scale=2)


squared_error = Rule(squared_error_forward, squared_error_backward)


class L2LossResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) prediction.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def l2_loss_forward(A: Array, Y: Array) -> tuple[Array, L2LossResiduals]:
    """C_b = ½ Σ (a − y)² for each example: Nielsen's quadratic cost.

    Args:
      A: (batch, ...) prediction, floating point.
      Y: (batch, ...) target of A's shape; of integers too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("l2_loss_forward", A, Y)
    return per_example(E * (E / 2), jnp.result_type(A, Y)), L2LossResiduals(A, Y)


def l2_loss_backward(residuals: L2LossResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through C_b = ½ Σ (a − y)².

        dA = dC ∘ E      dY = −dA

    Args:
      residuals: L2LossResiduals of l2_loss_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("l2_loss_backward", residuals, L2LossResiduals)
    return _cotangents("l2_loss_backward", A, Y, _difference(A, Y), dC)


l2_loss = Rule(l2_loss_forward, l2_loss_backward)


class AbsoluteErrorResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) prediction.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def absolute_error_forward(A: Array, Y: Array) -> tuple[Array, AbsoluteErrorResiduals]:
    """C_b = Σ |a − y| for each example.

    Args:
      A: (batch, ...) prediction, floating point.
      Y: (batch, ...) target of A's shape; of integers too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/losses/regression.md
    """
    E = _error("absolute_error_forward", A, Y)
    return per_example(E * jnp.sign(E), jnp.result_type(A, Y)), AbsoluteErrorResiduals(A, Y)


def absolute_error_backward(residuals: AbsoluteErrorResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through C_b = Σ |a − y|, with slope 0 where a = y (jnp.abs itself takes 1 there).

        dA = dC ∘ sign(E)      dY = −dA

    Args:
      residuals: AbsoluteErrorResiduals of absolute_error_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("absolute_error_backward", residuals, AbsoluteErrorResiduals)
    return _cotangents("absolute_error_backward", A, Y, jnp.sign(_difference(A, Y)), dC)


absolute_error = Rule(absolute_error_forward, absolute_error_backward)


class HuberLossResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) prediction.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def huber_loss_forward(A: Array, Y: Array, *, delta: float = 1.0) -> tuple[Array, HuberLossResiduals]:
    """C_b = Σ ½ e² where |e| ≤ δ, δ (|e| − ½ δ) elsewhere, for each example.

    Args:
      A: (batch, ...) prediction, floating point.
      Y: (batch, ...) target of A's shape; of integers too.
      delta: δ > 0, in units of A: where the parabola goes over into lines.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A; δ is not positive.
    Derivation: docs/derivations/losses/regression.md (Huber 1964)
    """
    check_positive("huber_loss_forward", "delta", delta)
    E = _error("huber_loss_forward", A, Y)
    inside = jnp.clip(E, -delta, delta)
    return per_example(inside * (E - inside / 2), jnp.result_type(A, Y)), HuberLossResiduals(A, Y)


def huber_loss_backward(residuals: HuberLossResiduals, dC: Array, *, delta: float = 1.0) -> tuple[Array, Array | None]:
    """Pull dC back through the Huber loss; the slope is continuous at ±δ.

        dA = dC ∘ clip(E, −δ, δ)      dY = −dA

    Args:
      residuals: HuberLossResiduals of huber_loss_forward.
      dC: (batch,) cotangent of C, any numbers.
      delta: δ, the forward's.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/regression.md
    """
    A, Y = check_residuals("huber_loss_backward", residuals, HuberLossResiduals)
    return _cotangents("huber_loss_backward", A, Y, jnp.clip(_difference(A, Y), -delta, delta), dC)


huber_loss = Rule(huber_loss_forward, huber_loss_backward)


def _error(where: str, A: Array, Y: Array) -> Array:
    check_array(where, "the prediction A", A, min_ndim=1)
    check_target(where, Y, A.shape, "like the prediction A")
    return _difference(A, Y)


def _difference(A: Array, Y: Array) -> Array:
    A, Y = wide(A, Y)
    return A - Y


def _cotangents(
    where: str, A: Array, Y: Array, slope: Array, dC: Array, scale: float = 1
) -> tuple[Array, Array | None]:
    """dA and dY of a loss that sees A − Y alone: dC times the slope, and the same with the other sign."""
    dC = scale * to_elements(where, dC, A, jnp.result_type(A, Y))
    return pulled(dC, slope, A), target_cotangent(-dC, slope, Y)
