"""Cross-entropy of softmax from logits, and what language models add: class weights, tokens to ignore, a z-loss on
log Σ eᶻ, a cap on the logits."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_residuals, check_shape, is_integer
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._softmax import chances, mismatch, rest_of, shifted
from handgrad.rules.losses._losses import Losses, counted, per_example, pulled, target_cotangent, to_elements
from handgrad.rules.losses._targets import (
    Distributions,
    Labels,
    Put,
    as_distribution,
    check_labels_or_distributions,
    check_options,
    ignored,
    loss_of_rows,
    of_others,
    selected,
    slope_of_labels,
    weighted,
    with_label,
)

__all__ = [
    "SoftmaxCrossEntropyResiduals",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
]

Logits = Float[Array, "batch *tokens n"]
Options = tuple[float, int | None, float, float | None]  # label_smoothing, ignore_index, z_loss, softcap


class SoftmaxCrossEntropyResiduals(NamedTuple):
    """The arguments (references, no copies) and two numbers for each row of logits.

    Attributes:
      Z: logits.
      M: the largest logit of each row, in float32 at least.
      rest: like M, Σ e^(s − m) over all but one of the largest, s and m being capped: P = e^(S − m) / (1 + rest). Kept
        apart, neither is rounded to the size of the other, as in log Σ eˢ = m + log(1 + rest).
      Y: the target.
      class_weights: as given.
    """

    Z: Logits
    M: Float[Array, "batch *tokens 1"]
    rest: Float[Array, "batch *tokens 1"]
    Y: Labels | Distributions
    class_weights: Float[Array, " n"] | None


def softmax_cross_entropy_forward(
    Z: Logits,
    Y: Labels | Distributions,
    class_weights: Float[Array, " n"] | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Losses, SoftmaxCrossEntropyResiduals]:
    """C_b = −Σ q log softmax(z) for each example, q being the target as a distribution.

    A label k stands for the distribution that is 1 at k. A label outside 0 … n − 1, which can't be seen at trace time,
    makes its example's loss and the cotangent of its logits NaN. (JAX itself cuts NumPy's 64-bit integers to 32 bits
    where float64 is off, before any rule sees them.)

    With class weights and options, C_b = −Σ w q log softmax(s) + ζ Σ (log Σ eˢ)². Smoothing by ε replaces q by
    (1 − ε) q + ε / n. The logits are s = z, or κ tanh(z / κ) under a cap κ.

    Args:
      Y: labels in 0 … n − 1, or distributions.
      class_weights: w, each class's weight; None stands for ones. The sum over tokens isn't divided by them.
      label_smoothing: ε in [0, 1).
      ignore_index: the label of tokens that cost 0, inside or outside the classes; None for no such.
      z_loss: ζ ≥ 0, the weight of (log Σ eˢ)², which keeps logits from drifting away together.
      softcap: κ > 0; None for no cap.
    Derivation: docs/derivations/losses/softmax_cross_entropy.md
    """
    return forward_by(with_label, Z, Y, class_weights, (label_smoothing, ignore_index, z_loss, softcap))


def forward_by(
    put: Put, Z: Logits, Y: Labels | Distributions, class_weights: Array | None, options: Options
) -> tuple[Losses, SoftmaxCrossEntropyResiduals]:
    """The forward pass, where `put` puts a number in each label's place."""
    label_smoothing, ignore_index, z_loss, softcap = options
    where = "softmax_cross_entropy_forward"
    check_array(where, "the logits Z", Z, min_ndim=2, filled=True)
    check_options(where, label_smoothing, ignore_index, z_loss, softcap)
    check_labels_or_distributions(where, Y, Z.shape, ignore_index)
    if class_weights is not None:
        check_array(where, "class_weights", class_weights)
        check_shape(where, "class_weights", class_weights, Z.shape[-1:], "(one for each class)")
    dtype = _dtype(Z, Y, class_weights)
    M = jnp.max(Z, axis=-1, keepdims=True).astype(accumulator(dtype))
    D = _shifted(Z, M, softcap)
    C, rest = loss_of_rows(D, Y, class_weights, label_smoothing, ignore_index, put)
    if z_loss:
        lse = _capped(M, softcap) + jnp.log1p(rest)
        C = C + z_loss * lse * lse
    if ignore_index is not None:
        C = jnp.where(ignored(Y, ignore_index), 0, C)
    return per_example(C, dtype), SoftmaxCrossEntropyResiduals(Z, M, rest, Y, class_weights)


def softmax_cross_entropy_backward(
    residuals: SoftmaxCrossEntropyResiduals,
    dC: Losses,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Logits, Distributions | None, Float[Array, " n"] | None]:
    """Pull dC back through the cross-entropy of softmax(S) and the z-loss.

        dZ = dC ∘ (P − Q)      dY = −dC ∘ L      P = softmax(Z) = e^L

    With class weights w, smoothing ε, a z-loss ζ and a cap κ on the logits:

        dS = dC ∘ (P ∘ (V 1 + 2 ζ log Σ eˢ) 1ᵀ − V)      V = Q ∘ w, P = e^L; V 1 = 1 for a distribution without w
           = dC ∘ (P ∘ (V⁻ + 2 ζ log Σ eˢ 1ᵀ) − V ∘ P⁻)      P⁻ = 1 − P and V⁻ = V 1 1ᵀ − V, sums of the others
        dZ = dS ∘ (1 − (S / κ)²)      dY = −(1 − ε) dC ∘ w ∘ L      dw = −Σ dC ∘ Q ∘ L

    The second form keeps its digits where p rounds to 1. dY is 0 where the target is 0 and the logit −∞.

    Args:
      label_smoothing, ignore_index, z_loss, softcap: the forward's.
    Derivation: docs/derivations/losses/softmax_cross_entropy.md
    """
    return backward_by(with_label, residuals, dC, (label_smoothing, ignore_index, z_loss, softcap))


def backward_by(
    put: Put, residuals: SoftmaxCrossEntropyResiduals, dC: Losses, options: Options
) -> tuple[Logits, Distributions | None, Float[Array, " n"] | None]:
    """The backward pass, where `put` puts a number in each label's place."""
    label_smoothing, ignore_index, z_loss, softcap = options
    where = "softmax_cross_entropy_backward"
    Z, M, rest, Y, class_weights = check_residuals(where, residuals, SoftmaxCrossEntropyResiduals)
    dC = to_elements(where, dC, Z, _dtype(Z, Y, class_weights))
    D = _shifted(Z, M, softcap)
    L, lse = _logarithms(D, M, rest, Y, ignore_index, softcap)
    P, others = chances(D, rest)
    Q = as_distribution(Y, Z.shape[-1], M.dtype, label_smoothing, ignore_index)
    V = weighted(Q, class_weights)
    of_label = None  # the slope at each row's label, where it is still to be put in its place
    if not is_integer(Y):
        slope = mismatch(P, V)
    elif label_smoothing:
        slope = P * of_others(Y, V, class_weights, label_smoothing) - V * others
    else:
        slope, of_label = slope_of_labels(D, rest, Y, class_weights, put)
        if z_loss or softcap is not None:
            slope, of_label = selected(slope, Y, of_label), None
    if z_loss:
        slope = slope + 2 * z_loss * lse * P
    if softcap is not None:
        slope = slope * _slope_of_cap(Z.astype(M.dtype) / softcap)
    if ignore_index is not None:
        dC = jnp.where(ignored(Y, ignore_index), 0, dC)
    dZ = pulled(dC, slope, Z)
    if of_label is not None:
        dZ = put(dZ, Y, pulled(dC, of_label, Z))
    L = counted(V, L)
    dY = target_cotangent(-(1 - label_smoothing) * dC, weighted(L, class_weights), Y)
    if class_weights is None:
        return dZ, dY, None
    of_rows = jnp.where(
        (Q == 0) | (dC == 0), 0, -dC * Q * L
    )  # a row's NaN does not propagate to a class that it gives no weight
    dw = jnp.sum(of_rows, axis=tuple(range(Z.ndim - 1)))
    return dZ, dY, dw.astype(class_weights.dtype)


softmax_cross_entropy = Rule(softmax_cross_entropy_forward, softmax_cross_entropy_backward)


def row_weights(residuals: SoftmaxCrossEntropyResiduals, label_smoothing: float, ignore_index: int | None) -> Array:
    """ν = Σ w ∘ q, the weight of each row of logits: (batch, ..., 1)."""
    Z, M, _, Y, class_weights = residuals
    Q = as_distribution(Y, Z.shape[-1], M.dtype, label_smoothing, ignore_index)
    return jnp.sum(weighted(Q, class_weights), axis=-1, keepdims=True)


def row_chances(residuals: SoftmaxCrossEntropyResiduals) -> tuple[Array, Array, Array, Array]:
    """S − M, its rest, P and 1 − P, of logits without a cap, whatever the target is."""
    Z, M, *_ = residuals
    D = _shifted(Z, M, None)
    rest = rest_of(D)
    return D, rest, *chances(D, rest)


def _capped(Z: Array, softcap: float | None) -> Array:
    """S = κ tanh(Z / κ), or Z itself."""
    return Z if softcap is None else softcap * jnp.tanh(Z / softcap)


def _shifted(Z: Array, M: Array, softcap: float | None) -> Array:
    """S − M, in M's dtype."""
    return shifted(_capped(Z.astype(M.dtype), softcap), _capped(M, softcap))


def _logarithms(
    D: Array, M: Array, rest: Array, Y: Array, ignore_index: int | None, softcap: float | None
) -> tuple[Array, Array]:
    """log softmax and log Σ eˢ, 0 in the rows to ignore, whatever their logits were."""
    log_total = jnp.log1p(rest)
    L, lse = D - log_total, _capped(M, softcap) + log_total
    if ignore_index is None:
        return L, lse
    skip = ignored(Y, ignore_index)
    return jnp.where(skip, 0, L), jnp.where(skip, 0, lse)


def _slope_of_cap(T: Array) -> Array:
    """1 − tanh² t = 4 e / (1 + e)², e = e^(−2|t|): no difference of 1 and what rounds to it."""
    E = jnp.exp(-2 * jnp.abs(T))
    return 4 * E / (1 + E) ** 2


def _dtype(Z: Array, Y: Array, class_weights: Array | None) -> np.dtype:
    """The loss's dtype; that of labels does not matter."""
    numbers = [Z] if is_integer(Y) else [Z, Y]
    return jnp.result_type(*numbers, *([] if class_weights is None else [class_weights]))
