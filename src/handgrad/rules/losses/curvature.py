"""The Hessian of a loss by its prediction, as curvature needs it: a root of it, and a draw that has it as variance.

A loss that is −log p(target | prediction) has both: with H_b the Hessian of example b's loss, `<loss>_root` multiplies
with an S_b such that H_b = S_b S_bᵀ, and `<loss>_draw` is the loss's slope at a target drawn from p, so that its mean
is 0 and its variance H_b (the Fisher information). Both take what the loss's forward pass kept and return an array like
the prediction; both are 0 for a token to ignore.

Derivation of all: docs/derivations/losses/curvature.md
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad.checks import check_cotangent, check_residuals
from handgrad.rules._softmax import sum_of_others
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import Prediction
from handgrad.rules.losses.binary import SigmoidCrossEntropyResiduals
from handgrad.rules.losses.regression import L2LossResiduals, SquaredErrorResiduals
from handgrad.rules.losses.softmax_cross_entropy import SoftmaxCrossEntropyResiduals, row_chances, row_weights

__all__ = [
    "l2_loss_draw",
    "l2_loss_root",
    "sigmoid_cross_entropy_draw",
    "sigmoid_cross_entropy_root",
    "softmax_cross_entropy_draw",
    "softmax_cross_entropy_root",
    "squared_error_draw",
    "squared_error_root",
]

Logits = Float[Array, "batch *tokens n"]


def softmax_cross_entropy_root(
    residuals: SoftmaxCrossEntropyResiduals, U: Logits, *, label_smoothing: float = 0.0, ignore_index: int | None = None
) -> Logits:
    """S U of the cross-entropy of p = softmax(z), row by row.

        H = ν (diag(p) − p pᵀ)      S = √ν (diag(√p) − p √pᵀ)
        S u = √ν (√p ∘ u − ⟨√p, u⟩ p) = √ν (√p ∘ u ∘ (1 − p) − p ∘ t)      t_k = Σ_{j ≠ k} √p_j u_j

    ν = Σ w ∘ q, the weight of the row's target: 1 without class weights, 0 for a row to ignore.

    Args:
      residuals: of a forward pass without z_loss and softcap, which change the Hessian, or negative class weights.
      label_smoothing, ignore_index: the forward's.
    """
    where = "softmax_cross_entropy_root"
    Z, *_ = check_residuals(where, residuals, SoftmaxCrossEntropyResiduals)
    check_cotangent(where, U, Z.shape, Z.dtype, name="U", of="the logits")
    D, rest, P, others = row_chances(residuals)
    along = jnp.exp(D / 2) / jnp.sqrt(1 + rest) * U.astype(P.dtype)  # √p ∘ u
    SU = along * others - P * sum_of_others(along)
    return _counting(residuals, SU, label_smoothing, ignore_index)


def softmax_cross_entropy_draw(
    residuals: SoftmaxCrossEntropyResiduals,
    key: PRNGKeyArray,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Logits:
    """√ν (p − e_y) for each row, y drawn from p = softmax(z): the slope at a label drawn from the model.

    E (p − e_y)(p − e_y)ᵀ = diag(p) − p pᵀ. Arguments as in softmax_cross_entropy_root.
    """
    check_residuals("softmax_cross_entropy_draw", residuals, SoftmaxCrossEntropyResiduals)
    D, _, P, others = row_chances(residuals)
    y = jax.random.categorical(key, D)
    drawn = jnp.expand_dims(y, -1) == jnp.arange(P.shape[-1]).reshape((1,) * y.ndim + (-1,))
    return _counting(residuals, jnp.where(drawn, -others, P), label_smoothing, ignore_index)


def _counting(
    residuals: SoftmaxCrossEntropyResiduals, rows: Array, label_smoothing: float, ignore_index: int | None
) -> Logits:
    """√ν times each row, 0 where that is 0, in the logits' dtype."""
    weights = row_weights(residuals, label_smoothing, ignore_index)
    return jnp.where(weights == 0, 0, jnp.sqrt(weights) * rows).astype(residuals.Z.dtype)


def sigmoid_cross_entropy_root(residuals: SigmoidCrossEntropyResiduals, U: Prediction) -> Prediction:
    """S U = √(σ(z) (1 − σ(z))) ∘ U = r / (1 + r²) ∘ U, r = e^(−|z| / 2): the Hessian is diagonal."""
    where = "sigmoid_cross_entropy_root"
    Z, _ = check_residuals(where, residuals, SigmoidCrossEntropyResiduals)
    check_cotangent(where, U, Z.shape, Z.dtype, name="U", of="the logits")
    z, u = wide(Z, U)
    r = jnp.exp(-jnp.abs(z) / 2)
    return (r / (1 + r**2) * u).astype(Z.dtype)


def sigmoid_cross_entropy_draw(residuals: SigmoidCrossEntropyResiduals, key: PRNGKeyArray) -> Prediction:
    """σ(z) − y, y being 1 with probability σ(z) and 0 else: σ(z) or −σ(−z)."""
    Z, _ = check_residuals("sigmoid_cross_entropy_draw", residuals, SigmoidCrossEntropyResiduals)
    p = jax.lax.logistic(Z)
    return jnp.where(jax.random.bernoulli(key, p), -jax.lax.logistic(-Z), p)


def squared_error_root(residuals: SquaredErrorResiduals, U: Prediction) -> Prediction:
    """S U = √2 U: the Hessian of Σ (a − y)² is 2 I."""
    A, _ = check_residuals("squared_error_root", residuals, SquaredErrorResiduals)
    check_cotangent("squared_error_root", U, A.shape, A.dtype, name="U", of="the prediction")
    return jnp.sqrt(2).astype(A.dtype) * U


def squared_error_draw(residuals: SquaredErrorResiduals, key: PRNGKeyArray) -> Prediction:
    """√2 ε, ε standard normal: the slope 2 (a − y) at y = a − ε / √2."""
    A, _ = check_residuals("squared_error_draw", residuals, SquaredErrorResiduals)
    return jnp.sqrt(2).astype(A.dtype) * jax.random.normal(key, A.shape, A.dtype)


def l2_loss_root(residuals: L2LossResiduals, U: Prediction) -> Prediction:
    """S U = U: the Hessian of ½ Σ (a − y)² is I."""
    A, _ = check_residuals("l2_loss_root", residuals, L2LossResiduals)
    check_cotangent("l2_loss_root", U, A.shape, A.dtype, name="U", of="the prediction")
    return U


def l2_loss_draw(residuals: L2LossResiduals, key: PRNGKeyArray) -> Prediction:
    """ε, standard normal: the slope a − y at y = a − ε."""
    A, _ = check_residuals("l2_loss_draw", residuals, L2LossResiduals)
    return jax.random.normal(key, A.shape, A.dtype)
