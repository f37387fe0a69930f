"""Losses for binary classification: from logits wherever these are at hand, else from probabilities."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.checks import InputError, check_positive, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.activations.smooth import softplus_forward
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

__all__ = [
    "BinaryCrossEntropyResiduals",
    "FocalLossResiduals",
    "SigmoidCrossEntropyResiduals",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_forward",
    "focal_loss",
    "focal_loss_backward",
    "focal_loss_forward",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_backward",
    "sigmoid_cross_entropy_forward",
]


class SigmoidCrossEntropyResiduals(NamedTuple):
    """The logits Z and the target Y: references, no copies."""

    Z: Prediction
    Y: Target


def sigmoid_cross_entropy_forward(Z: Prediction, Y: Target) -> tuple[Losses, SigmoidCrossEntropyResiduals]:
    """C_b = −Σ [y log σ(z) + (1 − y) log(1 − σ(z))] for each example, exact for any finite z.

    With 0 log 0 = 0: a logit of ±∞ that is right costs nothing. The target y is a probability.

    Derivation: docs/derivations/losses/binary.md
    """
    z, y = checked("sigmoid_cross_entropy_forward", "logits Z", Z, Y)
    return per_example(_cross_entropy(z, y), jnp.result_type(Z, Y)), SigmoidCrossEntropyResiduals(Z, Y)


def sigmoid_cross_entropy_backward(
    residuals: SigmoidCrossEntropyResiduals, dC: Losses
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the binary cross-entropy of σ(Z).

        dZ = dC ∘ (σ(Z) − Y)      dY = −dC ∘ Z

    σ(z) − y is written without a difference from 1, which would lose every digit where σ(z) rounds to 1. dY is 0 at a
    logit of ±∞ that is right.

    Derivation: docs/derivations/losses/binary.md
    """
    Z, Y = check_residuals("sigmoid_cross_entropy_backward", residuals, SigmoidCrossEntropyResiduals)
    dC = to_elements("sigmoid_cross_entropy_backward", dC, Z, jnp.result_type(Z, Y))
    z, y = wide(Z, Y)
    return pulled(dC, _sigmoid_minus(z, y), Z), target_cotangent(-dC, _unless_right(z, y), Y)


sigmoid_cross_entropy = Rule(sigmoid_cross_entropy_forward, sigmoid_cross_entropy_backward)


class FocalLossResiduals(NamedTuple):
    """The logits Z and the target Y: references, no copies."""

    Z: Prediction
    Y: Target


def focal_loss_forward(
    Z: Prediction, Y: Target, *, gamma: float = 2.0, alpha: float | None = None
) -> tuple[Losses, FocalLossResiduals]:
    """C_b = Σ α_y d^γ c for each example: the cross-entropy c of σ(z), times a power of the doubt d.

    d = y (1 − p) + (1 − y) p, p = σ(z), is the probability of the wrong answer; α_y = α y + (1 − α) (1 − y).

    Args:
      gamma: γ ≥ 0; 0 gives sigmoid_cross_entropy.
      alpha: α in [0, 1], the weight of positives; 1 − α is that of negatives. None stands for 1 each.
    Derivation: docs/derivations/losses/binary.md (Lin et al. 2017)
    """
    where = "focal_loss_forward"
    z, y = checked(where, "logits Z", Z, Y)
    if gamma != 0:
        check_positive(where, "gamma", gamma)
    if alpha is not None and not (isinstance(alpha, int | float | np.number) and 0 <= alpha <= 1):
        raise InputError(f"{where}: alpha must be in [0, 1] or None, got {alpha!r}")
    D, _, _ = _doubt(z, y)
    C = _balance(y, alpha) * D**gamma * _cross_entropy(z, y)
    return per_example(C, jnp.result_type(Z, Y)), FocalLossResiduals(Z, Y)


def focal_loss_backward(
    residuals: FocalLossResiduals, dC: Losses, *, gamma: float = 2.0, alpha: float | None = None
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the focal loss.

        dZ = dC ∘ α_y ∘ D^γ ∘ (P − Y + γ (1 − 2 Y) ∘ R ∘ c)      R = P ∘ N / D, N = 1 − P
        dY = dC ∘ (α_y ∘ (γ (1 − 2 P) ∘ D^(γ−1) ∘ c − D^γ ∘ Z) + (2 α − 1) D^γ ∘ c)

    Derivation: docs/derivations/losses/binary.md
    """
    Z, Y = check_residuals("focal_loss_backward", residuals, FocalLossResiduals)
    dC = to_elements("focal_loss_backward", dC, Z, jnp.result_type(Z, Y))
    z, y = wide(Z, Y)
    C, (D, P, N) = _cross_entropy(z, y), _doubt(z, y)
    balance, power = _balance(y, alpha), D**gamma
    # 1 / R, so that at a surely right answer, where P N and D are both 0, their quotient is still 1.
    R = 1 / (jnp.where(y == 0, 0, y / P) + jnp.where(y == 1, 0, (1 - y) / N))
    dZ = balance * power * (_sigmoid_minus(z, y) + gamma * (1 - 2 * y) * (R * counted(R, C)))
    # Where D is 0, so is C, and with it the term.
    from_doubt = -gamma * jnp.tanh(z / 2) * jnp.where(D == 0, 0, power / jnp.where(D == 0, 1, D)) * C
    dY = balance * (from_doubt - power * _unless_right(z, y)) + (0 if alpha is None else 2 * alpha - 1) * power * C
    return pulled(dC, dZ, Z), target_cotangent(dC, dY, Y)


focal_loss = Rule(focal_loss_forward, focal_loss_backward)


class BinaryCrossEntropyResiduals(NamedTuple):
    """The probabilities A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def binary_cross_entropy_forward(A: Prediction, Y: Target) -> tuple[Losses, BinaryCrossEntropyResiduals]:
    """C_b = −Σ [y log a + (1 − y) log(1 − a)] for each example: Nielsen's cross-entropy, from probabilities.

    A probability that is 0 or 1 was rounded to it: 1 − a counts as ε / 4 at a = 1, half of the smallest 1 − a that the
    dtype knows below 1 (ε is its machine epsilon), and a as the smallest normal number at a = 0. So a prediction that
    is surely wrong has a large, finite loss: 17.3 and 87.3 in float32, 6.2 and 87.3 in bfloat16, 37.4 and 708.4 in
    float64. sigmoid_cross_entropy, from the logits, has no such edge.

    Derivation: docs/derivations/losses/binary.md (Nielsen, chapter 3)
    """
    _, y = checked("binary_cross_entropy_forward", "prediction A", A, Y)
    log_yes, log_no = _logarithms(A, Y)
    return per_example(-(y * log_yes + (1 - y) * log_no), jnp.result_type(A, Y)), BinaryCrossEntropyResiduals(A, Y)


def binary_cross_entropy_backward(
    residuals: BinaryCrossEntropyResiduals, dC: Losses
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the binary cross-entropy of probabilities.

        dA = dC ∘ (A − Y) / (A ∘ (1 − A))      dY = −dC ∘ log(A / (1 − A))

    A and 1 − A in the denominators are never 0, as in the forward pass, and dA is clipped to the largest number of its
    dtype. After a sigmoid, whose slope is A ∘ (1 − A), the two compose to dZ = dC ∘ (A − Y), and to 0 where A is
    rounded to 0 or 1.

    Derivation: docs/derivations/losses/binary.md
    """
    A, Y = check_residuals("binary_cross_entropy_backward", residuals, BinaryCrossEntropyResiduals)
    dC = to_elements("binary_cross_entropy_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    yes, no = _chances(A, Y)
    # a − y itself is exact where they are close; where a is rounded to 0 or 1, no more than its two parts are known.
    error = jnp.where((a == 0) | (a == 1), (1 - y) * yes - y * no, a - y)
    slope = error / (yes * no)
    log_yes, log_no = _logarithms(A, Y)
    # log (1 − a) / a has no difference that vanishes at a = ½.
    log_odds = jnp.where(jnp.abs(a - 0.5) < 0.25, jnp.log1p((1 - 2 * a) / yes), log_no - log_yes)
    return pulled(dC, slope, A, finite=True), target_cotangent(dC, log_odds, Y)


binary_cross_entropy = Rule(binary_cross_entropy_forward, binary_cross_entropy_backward)


def _cross_entropy(z: Array, y: Array) -> Array:
    """c of each element. log σ(z) = −softplus(−z): no difference of large numbers on either side."""
    return y * counted(y, softplus_forward(-z)[0]) + (1 - y) * counted(1 - y, softplus_forward(z)[0])


def _sigmoid_minus(z: Array, y: Array) -> Array:
    """σ(z) − y, to a few roundings of it wherever y and z determine it.

    σ(z) − y = (u − t e) / (1 + e)      e = e^(−|z|), t = y, u = 1 − y at z ≥ 0; (t e − u) with t = 1 − y, u = y below
    u − t e = (u − t) + t (1 − e)       where e > ½, so that a y of ½ leaves nothing but 1 − e
    """
    t, u = jnp.where(z >= 0, y, 1 - y), jnp.where(z >= 0, 1 - y, y)
    e = jnp.exp(-jnp.abs(z))
    size = jnp.where(e > 0.5, (u - t) - t * jnp.expm1(-jnp.abs(z)), u - t * e) / (1 + e)
    return jnp.where(z >= 0, size, -size)


def _unless_right(z: Array, y: Array) -> Array:
    """z, but 0 at a logit of ±∞ that is right."""
    return jnp.where(jnp.isinf(z) & (y == (z > 0)), 0, z)


def _doubt(z: Array, y: Array) -> tuple[Array, Array, Array]:
    """d, p and 1 − p of each element; no difference of 1 and a number near it in any."""
    P, N = jax.lax.logistic(z), jax.lax.logistic(-z)
    return y * N + (1 - y) * P, P, N


def _balance(Y: Array, alpha: float | None) -> Array | float:
    return 1.0 if alpha is None else alpha * Y + (1 - alpha) * (1 - Y)


def _chances(A: Array, Y: Array) -> tuple[Array, Array]:
    """a and 1 − a, neither of them 0."""
    a, _ = wide(A, Y)
    least, least_no = _least(A, a)
    return a + jnp.where(a == 0, least, 0), 1 - a + jnp.where(a == 1, least_no, 0)


def _logarithms(A: Array, Y: Array) -> tuple[Array, Array]:
    """Their logarithms; 1 − a of a tiny a has lost its digits, log1p(−a) has not."""
    a, _ = wide(A, Y)
    yes, no = _chances(A, Y)
    _, least_no = _least(A, a)
    at_one = math.log(least_no) - 1 + no / least_no  # the number log least_no, with the slope that it stands for
    return jnp.log(yes), jnp.where(a == 1, at_one, jnp.log1p(-jnp.where(a == 1, 0, a)))


def _least(A: Array, a: Array) -> tuple[float, float]:
    """What a and 1 − a count as where A's dtype has rounded them to 0."""
    dtype = jnp.finfo(A.dtype)
    return max(float(dtype.smallest_subnormal), float(jnp.finfo(a.dtype).tiny)), float(dtype.eps) / 4
