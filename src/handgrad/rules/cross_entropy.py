"""Losses that compare probabilities with what happened, from logits wherever logits are at hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.rules.activations import softplus_forward
from handgrad.rules.softmax import log_softmax_forward
from handgrad.shapes import InputError, check_array, check_cotangent, check_residuals, check_target

__all__ = [
    "BinaryCrossEntropyResiduals",
    "SigmoidCrossEntropyResiduals",
    "SoftmaxCrossEntropyResiduals",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_forward",
    "sigmoid_cross_entropy_backward",
    "sigmoid_cross_entropy_forward",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
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
    return _per_example(C), SigmoidCrossEntropyResiduals(Z, Y)


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
    dC = _to_elements("sigmoid_cross_entropy_backward", dC, Z, jnp.result_type(Z, Y))
    return (dC * (jax.lax.logistic(Z) - Y)).astype(Z.dtype), _target_cotangent(-dC * Z, Y)


class SoftmaxCrossEntropyResiduals(NamedTuple):
    """One array of the logits' size, and the target itself.

    Attributes:
      L: (batch, ..., n) log softmax of the logits: e^L is dZ's first part, −L is dY.
      Y: the target, as it came.
    """

    L: Array
    Y: Array


def softmax_cross_entropy_forward(
    Z: Array, Y: Array, *, label_smoothing: float = 0.0
) -> tuple[Array, SoftmaxCrossEntropyResiduals]:
    """C_b = −Σ q log softmax(z) for each example, q being the target as a distribution, smoothed.

    A label k stands for the distribution that is 1 at k. Smoothing by ε replaces q by (1 − ε) q + ε / n. A label
    outside 0 … n − 1 can't be seen at trace time: it makes its example's loss, and the cotangent of its logits, NaN.
    (JAX itself cuts NumPy's 64-bit integers to 32 bits where float64 is off, before any rule sees them.)

    Args:
      Z: (batch, ..., n) logits, floating point.
      Y: (batch, ...) labels, integers in 0 … n − 1; or (batch, ..., n) distributions.
      label_smoothing: ε in [0, 1).
    Returns:
      C (batch,), the sum over the axes in between; residuals.
    Raises:
      InputError: Z is not floating point; Y is neither labels nor distributions for Z; ε outside [0, 1).
    Derivation: docs/derivations/cross_entropy.md
    """
    where = "softmax_cross_entropy_forward"
    check_array(where, "the logits Z", Z, min_ndim=2)
    if not 0 <= label_smoothing < 1:
        raise InputError(f"{where}: label_smoothing must be in [0, 1), got {label_smoothing}")
    if hasattr(Y, "dtype") and jnp.issubdtype(Y.dtype, jnp.integer):
        check_target(where, Y, Z.shape[:-1], "(one label for each row of logits)")
    else:
        check_target(where, Y, Z.shape, "(one probability for each logit)")
    (L, _) = log_softmax_forward(Z)
    Q = _distribution(Y, Z.shape[-1], Z.dtype, label_smoothing)
    # 0 log 0 = 0: a logit of −∞ costs nothing where the target never happens.
    return _per_example(-Q * jnp.where((Q == 0) & jnp.isneginf(L), 0, L)), SoftmaxCrossEntropyResiduals(L, Y)


def softmax_cross_entropy_backward(
    residuals: SoftmaxCrossEntropyResiduals, dC: Array, *, label_smoothing: float = 0.0
) -> tuple[Array, Array | None]:
    """Pull dC back through the cross-entropy of softmax(Z).

        dZ = dC ∘ (P ∘ (Q 1) 1ᵀ − Q)      P = e^L; Q 1 = 1 where the target is a distribution
        dY = −(1 − ε) dC ∘ L

    Args:
      residuals: SoftmaxCrossEntropyResiduals of softmax_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
      label_smoothing: ε, the forward's.
    Returns:
      dZ like Z; dY like Y, or None where Y is of labels.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/cross_entropy.md
    """
    L, Y = check_residuals("softmax_cross_entropy_backward", residuals, SoftmaxCrossEntropyResiduals)
    Q = _distribution(Y, L.shape[-1], L.dtype, label_smoothing)
    dC = _to_elements("softmax_cross_entropy_backward", dC, L, jnp.result_type(Q, L))
    dZ = dC * (jnp.exp(L) * jnp.sum(Q, axis=-1, keepdims=True) - Q)
    return dZ.astype(L.dtype), _target_cotangent(-dC * (1 - label_smoothing) * L, Y)


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
    return _per_example(C), BinaryCrossEntropyResiduals(A, Y)


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
    dC = _to_elements("binary_cross_entropy_backward", dC, A, jnp.result_type(A, Y))
    # Two quotients instead of one: at a = y = 1 or a = y = 0 the one that would be 0 / 0 is left out, as in the
    # forward pass.
    slope = jnp.where(Y == 1, 0, (1 - Y) / (1 - A)) - jnp.where(Y == 0, 0, Y / A)
    return (dC * slope).astype(A.dtype), _target_cotangent(dC * (jnp.log1p(-A) - jnp.log(A)), Y)


def _distribution(Y: Array, n: int, dtype: jnp.dtype, label_smoothing: float) -> Array:
    """The target as distributions over n classes, NaN for a label that names no class."""
    if jnp.issubdtype(Y.dtype, jnp.integer):
        labels = jnp.expand_dims(Y.astype(jnp.promote_types(Y.dtype, jnp.int32)), -1)
        classes = jnp.arange(n).reshape((1,) * Y.ndim + (n,))
        Y = jnp.where((labels >= 0) & (labels < n), labels == classes, jnp.nan).astype(dtype)
    return (1 - label_smoothing) * Y + label_smoothing / n if label_smoothing else Y


def _per_example(C: Array) -> Array:
    return jnp.sum(C, axis=tuple(range(1, C.ndim)))


def _to_elements(where: str, dC: Array, like: Array, dtype: jnp.dtype) -> Array:
    """dC (batch,) against (batch, ...)."""
    check_cotangent(where, dC, like.shape[:1], dtype, name="dC", of="C")
    return jnp.expand_dims(dC, tuple(range(1, like.ndim)))


def _target_cotangent(dY: Array, Y: Array) -> Array | None:
    return dY.astype(Y.dtype) if jnp.issubdtype(Y.dtype, jnp.floating) else None
