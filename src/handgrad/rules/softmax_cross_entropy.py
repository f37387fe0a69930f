"""Cross-entropy of softmax from logits, and what language models add: weights of classes, tokens that don't count, a
loss on log Σ eᶻ, a cap on the logits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.factors.base import accumulator
from handgrad.rules._losses import per_example, target_cotangent, to_elements
from handgrad.rules.softmax import log_softmax_forward, logsumexp_forward
from handgrad.shapes import (
    InputError,
    as_row,
    check_array,
    check_positive,
    check_residuals,
    check_shape,
    check_target,
    describe,
)

__all__ = [
    "SoftmaxCrossEntropyResiduals",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
]

Array = jax.Array


class SoftmaxCrossEntropyResiduals(NamedTuple):
    """One array of the logits' size, one number for each row of it, and the arguments that are no logits.

    Attributes:
      L: (batch, ..., n) log softmax of the capped logits: e^L is dZ's first part, −L is dY. 0 where ignored.
      lse: (batch, ...) log Σ eˢ of the same: the z-loss is made of it, and S = L + lse tells the cap's slope. 0 where
        ignored.
      Y: the target, as it came.
      class_weights: (n,) as they came, or None.
    """

    L: Array
    lse: Array
    Y: Array
    class_weights: Array | None


def softmax_cross_entropy_forward(
    Z: Array,
    Y: Array,
    class_weights: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Array, SoftmaxCrossEntropyResiduals]:
    """C_b = −Σ w q log softmax(s) + ζ Σ (log Σ eˢ)² for each example, q being the target as a distribution, smoothed.

    A label k stands for the distribution that is 1 at k. Smoothing by ε replaces q by (1 − ε) q + ε / n. The logits are
    s = z, or κ tanh(z / κ) under a cap κ. A token labelled ignore_index costs 0. Any other label outside 0 … n − 1
    can't be seen at trace time: it makes its example's loss, and the cotangent of its logits, NaN.
    (JAX itself cuts NumPy's 64-bit integers to 32 bits where float64 is off, before any rule sees them.)

    Args:
      Z: (batch, ..., n) logits, floating point.
      Y: (batch, ...) labels, integers in 0 … n − 1; or (batch, ..., n) distributions.
      class_weights: (n,) w, what each class counts; None stands for ones. The sum over tokens isn't divided by them.
      label_smoothing: ε in [0, 1).
      ignore_index: the label of tokens that don't count, inside or outside the classes; None for no such.
      z_loss: ζ ≥ 0, the weight of (log Σ eˢ)², which keeps logits from drifting away together.
      softcap: κ > 0; None for no cap.
    Returns:
      C (batch,), the sum over the axes in between; residuals.
    Raises:
      InputError: Z is not floating point; Y is neither labels nor distributions for Z; class_weights not (n,); ε
        outside [0, 1); an ignore_index without labels, or no 32-bit integer; ζ below 0; κ not positive.
    Derivation: docs/derivations/softmax_cross_entropy.md
    """
    where = "softmax_cross_entropy_forward"
    check_array(where, "the logits Z", Z, min_ndim=2)
    check_options(where, label_smoothing, ignore_index, z_loss, softcap)
    check_labels_or_distributions(where, Y, Z.shape, ignore_index)
    if class_weights is not None:
        check_array(where, "class_weights", class_weights)
        check_shape(where, "class_weights", class_weights, Z.shape[-1:], "(one for each class)")
    S = capped(Z, softcap)
    L, lse = without_ignored(log_softmax_forward(S)[0], logsumexp_forward(S)[0], Y, ignore_index)
    Q = _distribution(Y, Z.shape[-1], Z.dtype, label_smoothing, ignore_index)
    V = _weighted(Q, class_weights)
    # 0 log 0 = 0: a logit of −∞ costs nothing where the target never happens.
    C = per_example(-V * jnp.where((V == 0) & jnp.isneginf(L), 0, L))
    if z_loss:
        C = C + z_loss * per_example(lse**2)
    return C, SoftmaxCrossEntropyResiduals(L, lse, Y, class_weights)


def softmax_cross_entropy_backward(
    residuals: SoftmaxCrossEntropyResiduals,
    dC: Array,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Pull dC back through the cross-entropy of softmax(S) and the z-loss.

        dS = dC ∘ (P ∘ (V 1 + 2 ζ log Σ eˢ) 1ᵀ − V)      V = Q ∘ w, P = e^L; V 1 = 1 for a distribution without w
        dZ = dS ∘ (1 − (S / κ)²)      dY = −(1 − ε) dC ∘ w ∘ L      dw = −Σ dC ∘ Q ∘ L

    Args:
      residuals: SoftmaxCrossEntropyResiduals of softmax_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
      label_smoothing, ignore_index, z_loss, softcap: the forward's.
    Returns:
      dZ like Z; dY like Y, or None where Y is of labels; dclass_weights (n,), or None without them.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/softmax_cross_entropy.md
    """
    where = "softmax_cross_entropy_backward"
    L, lse, Y, class_weights = check_residuals(where, residuals, SoftmaxCrossEntropyResiduals)
    Q = _distribution(Y, L.shape[-1], L.dtype, label_smoothing, ignore_index)
    V = _weighted(Q, class_weights)
    dC = to_elements(where, dC, L, jnp.result_type(V, L))
    lse = jnp.expand_dims(lse, -1)
    dZ = dC * (jnp.exp(L) * (jnp.sum(V, axis=-1, keepdims=True) + 2 * z_loss * lse) - V)
    if softcap is not None:
        T = (L + lse) / softcap
        dZ = dZ * ((1 - T) * (1 + T))
    dY = target_cotangent(-(1 - label_smoothing) * _weighted(dC * L, class_weights), Y)
    if class_weights is None:
        return dZ.astype(L.dtype), dY, None
    of_rows = jnp.where(Q == 0, 0, -dC * Q * L)  # a class that no row asks for hears nothing of a row's NaN
    dw = jnp.sum(of_rows, axis=tuple(range(L.ndim - 1)), dtype=accumulator(dC))
    return dZ.astype(L.dtype), dY, dw.astype(class_weights.dtype)


def row_weights(residuals: SoftmaxCrossEntropyResiduals, label_smoothing: float, ignore_index: int | None) -> Array:
    """ν = Σ w ∘ q, what each row of logits counts: (batch, ..., 1)."""
    L, _, Y, class_weights = residuals
    Q = _distribution(Y, L.shape[-1], L.dtype, label_smoothing, ignore_index)
    return jnp.sum(_weighted(Q, class_weights), axis=-1, keepdims=True)


def check_options(where: str, label_smoothing: Any, ignore_index: Any, z_loss: Any, softcap: Any) -> None:
    """The four options of the softmax cross-entropies."""
    if not 0 <= label_smoothing < 1:
        raise InputError(f"{where}: label_smoothing must be in [0, 1), got {label_smoothing}")
    if ignore_index is not None and not _is_index(ignore_index):
        raise InputError(f"{where}: ignore_index must be an integer of 32 bits or None, got {ignore_index!r}")
    if z_loss != 0:
        check_positive(where, "z_loss", z_loss)
    if softcap is not None:
        check_positive(where, "softcap", softcap)


def check_labels_or_distributions(where: str, Y: Any, shape: tuple[int, ...], ignore_index: int | None) -> None:
    """Y is a target for logits of this shape."""
    if hasattr(Y, "dtype") and jnp.issubdtype(Y.dtype, jnp.integer):
        check_target(where, Y, shape[:-1], "(one label for each row of logits)")
        return
    check_target(where, Y, shape, "(one probability for each logit)")
    if ignore_index is not None:
        raise InputError(f"{where}: the target Y must be labels where there is an ignore_index, got {describe(Y)}")


def capped(Z: Array, softcap: float | None) -> Array:
    """S = κ tanh(Z / κ), or Z itself."""
    return Z if softcap is None else softcap * jnp.tanh(Z / softcap)


def without_ignored(L: Array, lse: Array, Y: Array, ignore_index: int | None) -> tuple[Array, Array]:
    """L and lse with 0 in the rows that don't count, whatever their logits were."""
    if ignore_index is None:
        return L, lse
    ignored = is_ignored(Y, ignore_index)
    return jnp.where(jnp.expand_dims(ignored, -1), 0, L), jnp.where(ignored, 0, lse)


def is_ignored(Y: Array, ignore_index: int) -> Array:
    """Which labels don't count."""
    return _as_int32(Y) == ignore_index


def _distribution(Y: Array, n: int, dtype: Any, label_smoothing: float, ignore_index: int | None) -> Array:
    """The target as distributions over n classes: NaN for a label that names no class, 0 for one to ignore."""
    if not jnp.issubdtype(Y.dtype, jnp.integer):
        return _smoothed(Y, n, label_smoothing)
    labels = jnp.expand_dims(_as_int32(Y), -1)
    classes = jnp.arange(n).reshape((1,) * Y.ndim + (n,))
    Q = jnp.where((labels >= 0) & (labels < n), labels == classes, jnp.nan).astype(dtype)
    Q = _smoothed(Q, n, label_smoothing)
    return Q if ignore_index is None else jnp.where(labels == ignore_index, 0, Q)


def _smoothed(Q: Array, n: int, label_smoothing: float) -> Array:
    return (1 - label_smoothing) * Q + label_smoothing / n if label_smoothing else Q


def _weighted(Q: Array, class_weights: Array | None) -> Array:
    return Q if class_weights is None else Q * as_row(class_weights, Q.ndim)


def _as_int32(Y: Array) -> Array:
    """Labels wide enough for any class, and for any ignore_index."""
    return Y.astype(jnp.promote_types(Y.dtype, jnp.int32))


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**31) <= int(value) < 2**31
