"""Losses of a yes or no that care how clear the decision is: hinge asks for a margin, focal forgets easy examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, check_array, check_positive, check_residuals, check_target
from handgrad.rules.activations.smooth import softplus_forward
from handgrad.rules.losses._losses import counted, per_example, pulled, target_cotangent, to_elements, wide
from handgrad.rules.losses.binary import sigmoid_minus, unless_right
from handgrad.rules.rule import Rule

__all__ = [
    "FocalLossResiduals",
    "HingeLossResiduals",
    "focal_loss",
    "focal_loss_backward",
    "focal_loss_forward",
    "hinge_loss",
    "hinge_loss_backward",
    "hinge_loss_forward",
]

Array = jax.Array


class HingeLossResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) outputs of the decision function.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def hinge_loss_forward(A: Array, Y: Array) -> tuple[Array, HingeLossResiduals]:
    """C_b = Σ max(0, 1 − y a) for each example.

    Args:
      A: (batch, ...) outputs of the decision function, floating point.
      Y: (batch, ...) target of A's shape, −1 or 1; of integers too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/losses/margins.md (Cortes and Vapnik 1995)
    """
    check_array("hinge_loss_forward", "the prediction A", A, min_ndim=1)
    check_target("hinge_loss_forward", Y, A.shape, "like the prediction A")
    a, y = wide(A, Y)
    return per_example(jnp.maximum(0, 1 - y * a), jnp.result_type(A, Y)), HingeLossResiduals(A, Y)


def hinge_loss_backward(residuals: HingeLossResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through the hinge loss; where y a = 1, half the slope, as jnp.maximum has it for a tie.

        dA = −dC ∘ Y ∘ H      dY = −dC ∘ A ∘ H      H = [Y ∘ A < 1], ½ where it is 1

    Args:
      residuals: HingeLossResiduals of hinge_loss_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/margins.md
    """
    A, Y = check_residuals("hinge_loss_backward", residuals, HingeLossResiduals)
    dC = to_elements("hinge_loss_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    H = (1 + jnp.sign(1 - y * a)) / 2
    return pulled(-dC, y * H, A), target_cotangent(-dC, counted(H, a) * H, Y)


hinge_loss = Rule(hinge_loss_forward, hinge_loss_backward)


class FocalLossResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      Z: (batch, ...) logits.
      Y: (batch, ...) target.
    """

    Z: Array
    Y: Array


def focal_loss_forward(
    Z: Array, Y: Array, *, gamma: float = 2.0, alpha: float | None = None
) -> tuple[Array, FocalLossResiduals]:
    """C_b = Σ α_y d^γ c for each example: the cross-entropy c of σ(z), times a power of the doubt d.

    d = y (1 − p) + (1 − y) p is the probability, p = σ(z), of the answer that is wrong; α_y = α y + (1 − α) (1 − y).

    Args:
      Z: (batch, ...) logits, floating point.
      Y: (batch, ...) target of Z's shape, probabilities in [0, 1]; of integers 0 and 1 too.
      gamma: γ ≥ 0; 0 gives sigmoid_cross_entropy.
      alpha: α in [0, 1], how much a yes counts beside a no; None stands for 1 each.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: Z is not floating point; Y has another shape than Z; γ below 0; α outside [0, 1].
    Derivation: docs/derivations/losses/margins.md (Lin et al. 2017)
    """
    where = "focal_loss_forward"
    check_array(where, "the logits Z", Z, min_ndim=1)
    check_target(where, Y, Z.shape, "like the logits Z")
    if gamma != 0:
        check_positive(where, "gamma", gamma)
    if alpha is not None and not 0 <= alpha <= 1:
        raise InputError(f"{where}: alpha must be in [0, 1] or None, got {alpha}")
    z, y = wide(Z, Y)
    C, D, _, _ = _cross_entropy_and_doubt(z, y)
    C = _balance(y, alpha) * D**gamma * C
    return per_example(C, jnp.result_type(Z, Y)), FocalLossResiduals(Z, Y)


def focal_loss_backward(
    residuals: FocalLossResiduals, dC: Array, *, gamma: float = 2.0, alpha: float | None = None
) -> tuple[Array, Array | None]:
    """Pull dC back through the focal loss.

        dZ = dC ∘ α_y ∘ D^γ ∘ (P − Y + γ (1 − 2 Y) ∘ R ∘ c)      R = P ∘ N / D, N = 1 − P
        dY = dC ∘ (α_y ∘ (γ (1 − 2 P) ∘ D^(γ−1) ∘ c − D^γ ∘ Z) + (2 α − 1) D^γ ∘ c)

    Args:
      residuals: FocalLossResiduals of focal_loss_forward.
      dC: (batch,) cotangent of C, any numbers.
      gamma, alpha: the forward's.
    Returns:
      dZ like Z; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/margins.md
    """
    Z, Y = check_residuals("focal_loss_backward", residuals, FocalLossResiduals)
    dC = to_elements("focal_loss_backward", dC, Z, jnp.result_type(Z, Y))
    z, y = wide(Z, Y)
    C, D, P, N = _cross_entropy_and_doubt(z, y)
    balance, power = _balance(y, alpha), D**gamma
    # 1 / R, so that at a surely right answer, where P N and D are both 0, their quotient is still 1.
    R = 1 / (jnp.where(y == 0, 0, y / P) + jnp.where(y == 1, 0, (1 - y) / N))
    dZ = balance * power * (sigmoid_minus(z, y) + gamma * (1 - 2 * y) * (R * counted(R, C)))
    # Where D is 0, so is C, and with it the term.
    from_doubt = -gamma * jnp.tanh(z / 2) * jnp.where(D == 0, 0, power / jnp.where(D == 0, 1, D)) * C
    dY = balance * (from_doubt - power * unless_right(z, y)) + (0 if alpha is None else 2 * alpha - 1) * power * C
    return pulled(dC, dZ, Z), target_cotangent(dC, dY, Y)


focal_loss = Rule(focal_loss_forward, focal_loss_backward)


def _cross_entropy_and_doubt(z: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """c, d, p and 1 − p of each element; no difference of large numbers, nor of 1 and a number near it, in any."""
    P, N = jax.lax.logistic(z), jax.lax.logistic(-z)
    C = y * counted(y, softplus_forward(-z)[0]) + (1 - y) * counted(1 - y, softplus_forward(z)[0])
    return C, y * N + (1 - y) * P, P, N


def _balance(Y: Array, alpha: float | None) -> Any:
    return 1 if alpha is None else alpha * Y + (1 - alpha) * (1 - Y)
