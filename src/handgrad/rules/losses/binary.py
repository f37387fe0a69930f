"""Losses that compare the probability of a yes with what happened: from its logit, wherever that is at hand."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_residuals, check_target
from handgrad.rules.activations.smooth import softplus_forward
from handgrad.rules.losses._losses import counted, per_example, pulled, target_cotangent, to_elements, wide
from handgrad.rules.rule import Rule

__all__ = [
    "BinaryCrossEntropyResiduals",
    "SigmoidCrossEntropyResiduals",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_forward",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_backward",
    "sigmoid_cross_entropy_forward",
]

Array = jax.Array


class SigmoidCrossEntropyResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      Z: (batch, ...) logits.
      Y: (batch, ...) target.
    """

    Z: Array
    Y: Array


def sigmoid_cross_entropy_forward(Z: Array, Y: Array) -> tuple[Array, SigmoidCrossEntropyResiduals]:
    """C_b = −Σ [y log σ(z) + (1 − y) log(1 − σ(z))] for each example, exact for any finite z.

    With 0 log 0 = 0: a logit of ±∞ that is right costs nothing.

    Args:
      Z: (batch, ...) logits, floating point.
      Y: (batch, ...) target of Z's shape, probabilities in [0, 1]; of integers 0 and 1 too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: Z is not floating point; Y has another shape than Z.
    Derivation: docs/derivations/losses/binary.md
    """
    check_array("sigmoid_cross_entropy_forward", "the logits Z", Z, min_ndim=1)
    check_target("sigmoid_cross_entropy_forward", Y, Z.shape, "like the logits Z")
    z, y = wide(Z, Y)
    # log σ(z) = −softplus(−z): no difference of large numbers on either side.
    C = y * counted(y, softplus_forward(-z)[0]) + (1 - y) * counted(1 - y, softplus_forward(z)[0])
    return per_example(C, jnp.result_type(Z, Y)), SigmoidCrossEntropyResiduals(Z, Y)


def sigmoid_cross_entropy_backward(residuals: SigmoidCrossEntropyResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through the binary cross-entropy of σ(Z).

        dZ = dC ∘ (σ(Z) − Y)      dY = −dC ∘ Z

    σ(z) − y is written without a difference from 1, which would lose every digit where σ(z) rounds to 1. dY is 0 at a
    logit of ±∞ that is right.

    Args:
      residuals: SigmoidCrossEntropyResiduals of sigmoid_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dZ like Z; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/binary.md
    """
    Z, Y = check_residuals("sigmoid_cross_entropy_backward", residuals, SigmoidCrossEntropyResiduals)
    dC = to_elements("sigmoid_cross_entropy_backward", dC, Z, jnp.result_type(Z, Y))
    z, y = wide(Z, Y)
    return pulled(dC, sigmoid_minus(z, y), Z), target_cotangent(-dC, unless_right(z, y), Y)


sigmoid_cross_entropy = Rule(sigmoid_cross_entropy_forward, sigmoid_cross_entropy_backward)


def unless_right(z: Array, y: Array) -> Array:
    """z, but 0 at a logit of ±∞ that is right."""
    return jnp.where(jnp.isinf(z) & (y == (z > 0)), 0, z)


def sigmoid_minus(z: Array, y: Array) -> Array:
    """σ(z) − y, to a few roundings of it wherever y and z determine it.

    σ(z) − y = (u − t e) / (1 + e)      e = e^(−|z|), t = y, u = 1 − y at z ≥ 0; (t e − u) with t = 1 − y, u = y below
    u − t e = (u − t) + t (1 − e)       where e > ½, so that a y of ½ leaves nothing but 1 − e
    """
    t, u = jnp.where(z >= 0, y, 1 - y), jnp.where(z >= 0, 1 - y, y)
    e = jnp.exp(-jnp.abs(z))
    size = jnp.where(e > 0.5, (u - t) - t * jnp.expm1(-jnp.abs(z)), u - t * e) / (1 + e)
    return jnp.where(z >= 0, size, -size)


class BinaryCrossEntropyResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      A: (batch, ...) probabilities.
      Y: (batch, ...) target.
    """

    A: Array
    Y: Array


def binary_cross_entropy_forward(A: Array, Y: Array) -> tuple[Array, BinaryCrossEntropyResiduals]:
    """C_b = −Σ [y log a + (1 − y) log(1 − a)] for each example: Nielsen's cross-entropy, from probabilities.

    A probability that is 0 or 1 was rounded to it: 1 − a counts as ε / 4 at a = 1, half of the smallest 1 − a that the
    dtype knows below 1 (ε is its machine epsilon), and a as the smallest normal number at a = 0. So a prediction that
    is surely wrong has a large, finite loss: 17.3 and 87.3 in float32, 6.2 and 87.3 in bfloat16, 37.4 and 708.4 in
    float64. sigmoid_cross_entropy, from the logits, has no such edge.

    Args:
      A: (batch, ...) probabilities in [0, 1], floating point.
      Y: (batch, ...) target of A's shape, probabilities in [0, 1]; of integers 0 and 1 too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/losses/binary.md (Nielsen, chapter 3)
    """
    check_array("binary_cross_entropy_forward", "the prediction A", A, min_ndim=1)
    check_target("binary_cross_entropy_forward", Y, A.shape, "like the prediction A")
    _, y = wide(A, Y)
    log_yes, log_no = _logarithms(A, Y)
    return per_example(-(y * log_yes + (1 - y) * log_no), jnp.result_type(A, Y)), BinaryCrossEntropyResiduals(A, Y)


def binary_cross_entropy_backward(residuals: BinaryCrossEntropyResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through the binary cross-entropy of probabilities.

        dA = dC ∘ (A − Y) / (A ∘ (1 − A))      dY = −dC ∘ log(A / (1 − A))

    A and 1 − A in the denominators are never 0, as in the forward pass, and dA no larger than the largest number of its
    dtype. After a sigmoid, whose slope is A ∘ (1 − A), the two compose to dZ = dC ∘ (A − Y), and to 0 where A is
    rounded to 0 or 1.

    Args:
      residuals: BinaryCrossEntropyResiduals of binary_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/losses/binary.md
    """
    A, Y = check_residuals("binary_cross_entropy_backward", residuals, BinaryCrossEntropyResiduals)
    dC = to_elements("binary_cross_entropy_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    yes, no = _chances(A, Y)
    # a − y itself is exact where they meet; where a is rounded to 0 or 1, no more than its two parts are known.
    error = jnp.where((a == 0) | (a == 1), (1 - y) * yes - y * no, a - y)
    slope = error / (yes * no)
    log_yes, log_no = _logarithms(A, Y)
    # log (1 − a) / a has no difference that vanishes at a = ½.
    log_odds = jnp.where(jnp.abs(a - 0.5) < 0.25, jnp.log1p((1 - 2 * a) / yes), log_no - log_yes)
    return pulled(dC, slope, A, finite=True), target_cotangent(dC, log_odds, Y)


binary_cross_entropy = Rule(binary_cross_entropy_forward, binary_cross_entropy_backward)


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
