"""The target of a softmax cross-entropy: labels or distributions, smoothed and weighted; labels to ignore."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_positive, check_share, check_target, describe, is_integer
from handgrad.meshes import Types
from handgrad.rules._softmax import rest_of, sum_of_others
from handgrad.rules.losses._losses import counted

Labels = Integer[Array, "batch *tokens"]
Distributions = Float[Array, "batch *tokens n"]
Put = Callable[[Array, Array, Array | float], Array]  # with_label or selected


def check_labels_or_distributions(where: str, Y: Array, shape: tuple[int, ...], ignore_index: int | None) -> None:
    """Y is a target for logits of this shape."""
    if is_integer(Y):
        check_target(where, Y, shape[:-1], "(one label for each row of logits)")
        return
    check_target(where, Y, shape, f"(one probability for each logit), or be integers of shape {tuple(shape[:-1])}")
    if ignore_index is not None:
        raise InputError(f"{where}: the target Y must be labels where there is an ignore_index, got {describe(Y)}")


def check_options(
    where: str, label_smoothing: float, ignore_index: int | None, z_loss: float, softcap: float | None
) -> None:
    """The four options of the softmax cross-entropies."""
    check_share(where, "label_smoothing", label_smoothing)
    if ignore_index is not None and not _is_index(ignore_index):
        raise InputError(f"{where}: ignore_index must be an integer of 32 bits or None, got {ignore_index!r}")
    if z_loss != 0:
        check_positive(where, "z_loss", z_loss)
    if softcap is not None:
        check_positive(where, "softcap", softcap)


def loss_of_rows(
    D: Array, Y: Array, class_weights: Array | None, label_smoothing: float, ignore_index: int | None, put: Put
) -> tuple[Array, Array]:
    """−Σ v ℓ of each row of logits D = S − M, and the rest of its softmax; (batch, ..., 1) both.

    ℓ = D − log(1 + rest), so that it is (Σ v) log(1 + rest) − Σ v D; all parts are positive where v is.
    """
    if is_integer(Y) and (class_weights is None or not label_smoothing):
        return _loss_of_labels(D, Y, class_weights, label_smoothing, put)
    V = weighted(as_distribution(Y, D.shape[-1], D.dtype, label_smoothing, ignore_index), class_weights)
    rest = _rest_of_labels(D, Y, put)[0] if is_integer(Y) else rest_of(D)
    # 0 log 0 = 0: a logit of −∞ costs nothing where the target never happens.
    own = jnp.sum(V * counted(V, D), axis=-1, keepdims=True)
    return jnp.sum(V, axis=-1, keepdims=True) * jnp.log1p(rest) - own, rest


def _loss_of_labels(
    D: Array, Y: Array, class_weights: Array | None, label_smoothing: float, put: Put
) -> tuple[Array, Array]:
    """The same of labels with weights or smoothing: to pick an element is quicker than a sum of products."""
    n = D.shape[-1]
    rest, d = _rest_of_labels(D, Y, put)
    C = jnp.log1p(rest) - d
    if label_smoothing:
        smooth = jnp.log1p(rest) - jnp.sum(D / n, axis=-1, keepdims=True)
        C = (1 - label_smoothing) * C + label_smoothing * smooth
    if class_weights is not None:
        weight = _weight_of_labels(Y, D, class_weights)
        C = weight * counted(weight, C)
    return jnp.where(names_a_class(Y, n), C, jnp.nan), rest


def _weight_of_labels(Y: Array, D: Array, class_weights: Array) -> Array:
    """The weight of each row's label, (batch, ..., 1); any weight where it names no class."""
    weights = jnp.asarray(class_weights, D.dtype)
    return jnp.expand_dims(meshes.take_rows(weights, _classes(Y, D.shape[-1]), jnp.nan), -1)


def _classes(Y: Array, n: int) -> Array:
    """Labels as indices: the nearest class for one that names none."""
    return jnp.clip(_widened(Y), 0, n - 1).astype(jnp.int32)


def _rest_of_labels(D: Array, Y: Array, put: Put) -> tuple[Array, Array]:
    """The rest of each row's softmax, as the sum over the other classes and what the label adds; and d, the label's
    element of D. (batch, ..., 1) both."""
    d = picked(D, Y)
    return jnp.sum(_without_label(D, Y, put), axis=-1, keepdims=True) + jnp.expm1(d), d


def slope_of_labels(D: Array, rest: Array, Y: Array, class_weights: Array | None, put: Put) -> tuple[Array, Array]:
    """w_y (P − Q) of labels: p at the other classes, and minus their sum, which belongs at the label, (batch, ..., 1);
    NaN where it names no class."""
    weight = 1 if class_weights is None else _weight_of_labels(Y, D, class_weights)
    share = jnp.where(names_a_class(Y, D.shape[-1]), weight / (1 + rest), jnp.nan)
    # rest = others + e^d − 1 and d ≤ 0: two positive numbers are added up.
    others = rest - jnp.expm1(picked(D, Y))
    return _without_label(D, Y, put) * share, -others * share


def with_label(A: Array, Y: Array, value: Array | float) -> Array:
    """A with `value` at each row's label.

    On a CPU, which writes A out before it is summed or multiplied, it is put in its place. Selected as an element of A,
    as elsewhere, it is part of a loop that XLA runs once for each use of the result, and writes out as often. (Several
    devices would have to gather A to write into it.)
    """
    if jax.default_backend() != "cpu" or meshes.places(A, A.shape[0]) > 1:
        return selected(A, Y, value)
    labels = jnp.expand_dims(_classes(Y, A.shape[-1]), -1)
    return jnp.put_along_axis(A, labels, jnp.asarray(value, A.dtype), axis=-1, inplace=False)


def selected(A: Array, Y: Array, value: Array | float) -> Array:
    """The same, element by element: of logits that are not needed otherwise, in their own memory."""
    return jnp.where(at_label(Y, A), value, A)


def _without_label(D: Array, Y: Array, put: Put) -> Array:
    """e^D, and 0 at each row's label. Its row sums are the label's `others`, to their last digit."""
    return put(jnp.exp(D), Y, 0)


def picked(D: Array, Y: Array) -> Array:
    """The element of each row that its label names, (batch, ..., 1), any element where it names none."""
    if meshes.spec(D)[-1]:  # classes lie on several devices
        return jnp.sum(jnp.where(at_label(Y, D), D, 0), axis=-1, keepdims=True)
    return jnp.take_along_axis(D, jnp.expand_dims(_classes(Y, D.shape[-1]), -1), axis=-1)


def of_others(Y: Array, V: Array, class_weights: Array | None, label_smoothing: float) -> Array:
    """V⁻ of labels: in each class's place the sum of V over all others, V being smoothed and weighted."""
    n, dtype = V.shape[-1], V.dtype
    of_label = weighted(one_hot(Y, n, dtype), class_weights)
    whole = 1 if class_weights is None else jnp.sum(of_label, axis=-1, keepdims=True)
    w = jnp.ones(n, dtype) if class_weights is None else class_weights.astype(dtype)
    return (1 - label_smoothing) * (whole - of_label) + label_smoothing / n * as_row(sum_of_others(w), V.ndim)


def as_distribution(Y: Array, n: int, dtype: np.dtype, label_smoothing: float, ignore_index: int | None) -> Array:
    """The target as distributions over n classes: NaN for a label that names no class, 0 for one to ignore."""
    if not is_integer(Y):
        return _smoothed(Y.astype(dtype), n, label_smoothing)
    Q = _smoothed(one_hot(Y, n, dtype), n, label_smoothing)
    return Q if ignore_index is None else jnp.where(ignored(Y, ignore_index), 0, Q)


def one_hot(Y: Array, n: int, dtype: np.dtype) -> Array:
    """Labels as distributions; NaN for one that names no class."""
    return jnp.where(names_a_class(Y, n), is_label(Y, n), jnp.nan).astype(dtype)


def is_label(Y: Array, n: int) -> Array:
    """(batch, ..., n): which class each label names."""
    return jnp.expand_dims(_widened(Y), -1) == jnp.arange(n).reshape((1,) * Y.ndim + (n,))


def at_label(Y: Array, D: Array) -> Array:
    """`is_label` as D (batch, ..., n) lies on the devices: classes may lie on several."""
    return Types.of(D).given_to(is_label(Y, D.shape[-1]))


def names_a_class(Y: Array, n: int) -> Array:
    """(batch, ..., 1): which labels are among 0 … n − 1."""
    labels = jnp.expand_dims(_widened(Y), -1)
    return (labels >= 0) & (labels < n)


def ignored(Y: Array, ignore_index: int) -> Array:
    """(batch, ..., 1): which rows of logits to ignore."""
    return jnp.expand_dims(is_ignored(Y, ignore_index), -1)


def is_ignored(Y: Array, ignore_index: int) -> Array:
    """(batch, ...): which labels say so."""
    return _widened(Y) == ignore_index


def _smoothed(Q: Array, n: int, label_smoothing: float) -> Array:
    return (1 - label_smoothing) * Q + label_smoothing / n if label_smoothing else Q


def weighted(Q: Array, class_weights: Array | None) -> Array:
    return Q if class_weights is None else Q * as_row(class_weights.astype(Q.dtype), Q.ndim)


def _widened(Y: Array) -> Array:
    """Labels wide enough for any class, and for any ignore_index."""
    return Y.astype(jnp.promote_types(Y.dtype, jnp.int32))


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**31) <= int(value) < 2**31
