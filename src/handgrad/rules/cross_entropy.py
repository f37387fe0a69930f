"""Losses that compare the probability of a yes with what happened: from its logit, wherever that is at hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.rules._losses import per_example, target_cotangent, to_elements
from handgrad.rules.activations import softplus_forward
from handgrad.shapes import check_array, check_residuals, check_target

__all__ = [
    "BinaryCrossEntropyResiduals",
    "SigmoidCrossEntropyResiduals",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_forward",
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

    Args:
      Z: (batch, ...) logits, floating point.
      Y: (batch, ...) target of Z's shape, probabilities in [0, 1]; of integers 0 and 1 too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: Z is not floating point; Y has another shape than Z.
    Derivation: docs/derivations/cross_entropy.md
    """
    check_array("sigmoid_cross_entropy_forward", "the logits Z", Z, min_ndim=1)
    check_target("sigmoid_cross_entropy_forward", Y, Z.shape, "like the logits Z")
    # log σ(z) = −softplus(−z): no difference of large numbers on either side.
    C = Y * softplus_forward(-Z)[0] + (1 - Y) * softplus_forward(Z)[0]
    return per_example(C), SigmoidCrossEntropyResiduals(Z, Y)


def sigmoid_cross_entropy_backward(residuals: SigmoidCrossEntropyResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through the binary cross-entropy of σ(Z).

        dZ = dC ∘ (σ(Z) − Y)      dY = −dC ∘ Z

    Args:
      residuals: SigmoidCrossEntropyResiduals of sigmoid_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dZ like Z; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/cross_entropy.md
    """
    Z, Y = check_residuals("sigmoid_cross_entropy_backward", residuals, SigmoidCrossEntropyResiduals)
    dC = to_elements("sigmoid_cross_entropy_backward", dC, Z, jnp.result_type(Z, Y))
    return (dC * (jax.lax.logistic(Z) - Y)).astype(Z.dtype), target_cotangent(-dC * Z, Y)


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

    With 0 log 0 = 0. The loss of a prediction that is surely wrong (a = 0 where y > 0) is infinite, as it is in
    mathematics; sigmoid_cross_entropy, from the logits, has no such edge.

    Args:
      A: (batch, ...) probabilities in [0, 1], floating point.
      Y: (batch, ...) target of A's shape, probabilities in [0, 1]; of integers 0 and 1 too.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: A is not floating point; Y has another shape than A.
    Derivation: docs/derivations/cross_entropy.md (Nielsen, chapter 3)
    """
    check_array("binary_cross_entropy_forward", "the prediction A", A, min_ndim=1)
    check_target("binary_cross_entropy_forward", Y, A.shape, "like the prediction A")
    yes = jnp.log(jnp.where((Y == 0) & (A == 0), 1, A))
    no = jnp.log1p(-jnp.where((Y == 1) & (A == 1), 0, A))
    C = -(Y * yes + (1 - Y) * no)
    return per_example(C), BinaryCrossEntropyResiduals(A, Y)


def binary_cross_entropy_backward(residuals: BinaryCrossEntropyResiduals, dC: Array) -> tuple[Array, Array | None]:
    """Pull dC back through the binary cross-entropy of probabilities.

        dA = dC ∘ (A − Y) / (A ∘ (1 − A))      dY = −dC ∘ log(A / (1 − A))

    After a sigmoid, whose slope is A ∘ (1 − A), the two compose to dZ = dC ∘ (A − Y), as long as a surely wrong a is
    not rounded to 0 or 1, where both this cotangent is infinite and the sigmoid's slope is 0.

    Args:
      residuals: BinaryCrossEntropyResiduals of binary_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
    Returns:
      dA like A; dY like Y, or None where Y is of integers.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/cross_entropy.md
    """
    A, Y = check_residuals("binary_cross_entropy_backward", residuals, BinaryCrossEntropyResiduals)
    dC = to_elements("binary_cross_entropy_backward", dC, A, jnp.result_type(A, Y))
    # Two quotients instead of one: at a = y = 1 or a = y = 0 the one that would be 0 / 0 is left out, as in the
    # forward pass.
    slope = jnp.where(Y == 1, 0, (1 - Y) / (1 - A)) - jnp.where(Y == 0, 0, Y / A)
    return (dC * slope).astype(A.dtype), target_cotangent(dC * (jnp.log1p(-A) - jnp.log(A)), Y)
