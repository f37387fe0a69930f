"""The target of a softmax cross-entropy: labels or distributions, smoothed and weighted; labels that don't count."""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.rules._softmax import sum_of_others
from handgrad.shapes import InputError, as_row, check_target, describe

Array = jax.Array


def check_labels_or_distributions(where: str, Y: Any, shape: tuple[int, ...], ignore_index: int | None) -> None:
    """Y is a target for logits of this shape."""
    if hasattr(Y, "dtype") and jnp.issubdtype(Y.dtype, jnp.integer):
        check_target(where, Y, shape[:-1], "(one label for each row of logits)")
        return
    check_target(where, Y, shape, "(one probability for each logit)")
    if ignore_index is not None:
        raise InputError(f"{where}: the target Y must be labels where there is an ignore_index, got {describe(Y)}")


def of_others(Y: Array, V: Array, class_weights: Array | None, largest: Array, label_smoothing: float) -> Array:
    """V⁻: in each class's place the sum of V over all others, V being smoothed and weighted."""
    if not jnp.issubdtype(Y.dtype, jnp.integer):
        return sum_of_others(V, largest)
    n, dtype = V.shape[-1], V.dtype
    of_label = weighted(one_hot(Y, n, dtype), class_weights)
    whole = 1 if class_weights is None else jnp.sum(of_label, axis=-1, keepdims=True)
    if not label_smoothing:
        return whole - of_label
    w = jnp.ones(n, dtype) if class_weights is None else class_weights.astype(dtype)
    smooth = sum_of_others(w, w == jnp.max(w))
    return (1 - label_smoothing) * (whole - of_label) + label_smoothing / n * as_row(smooth, V.ndim)


def as_distribution(Y: Array, n: int, dtype: Any, label_smoothing: float, ignore_index: int | None) -> Array:
    """The target as distributions over n classes: NaN for a label that names no class, 0 for one to ignore."""
    if not jnp.issubdtype(Y.dtype, jnp.integer):
        return _smoothed(Y.astype(dtype), n, label_smoothing)
    Q = _smoothed(one_hot(Y, n, dtype), n, label_smoothing)
    return Q if ignore_index is None else jnp.where(ignored(Y, ignore_index), 0, Q)


def one_hot(Y: Array, n: int, dtype: Any) -> Array:
    labels = jnp.expand_dims(_as_int32(Y), -1)
    classes = jnp.arange(n).reshape((1,) * Y.ndim + (n,))
    return jnp.where((labels >= 0) & (labels < n), labels == classes, jnp.nan).astype(dtype)


def ignored(Y: Array, ignore_index: int) -> Array:
    """(batch, ..., 1): which rows of logits don't count."""
    return jnp.expand_dims(is_ignored(Y, ignore_index), -1)


def is_ignored(Y: Array, ignore_index: int) -> Array:
    """(batch, ...): which labels don't count."""
    return _as_int32(Y) == ignore_index


def _smoothed(Q: Array, n: int, label_smoothing: float) -> Array:
    return (1 - label_smoothing) * Q + label_smoothing / n if label_smoothing else Q


def weighted(Q: Array, class_weights: Array | None) -> Array:
    return Q if class_weights is None else Q * as_row(class_weights.astype(Q.dtype), Q.ndim)


def _as_int32(Y: Array) -> Array:
    """Labels wide enough for any class, and for any ignore_index."""
    return Y.astype(jnp.promote_types(Y.dtype, jnp.int32))
