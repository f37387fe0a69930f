"""Losses of a preference: two answers to a prompt, the chosen and the rejected one, by their log-probabilities."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_positive, check_residuals, check_shape, check_share, describe
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import Losses, check_losses_cotangent, per_example, pulled
from handgrad.rules.losses.binary import sigmoid_cross_entropy

__all__ = [
    "DpoLossResiduals",
    "IpoLossResiduals",
    "dpo_loss",
    "dpo_loss_backward",
    "dpo_loss_forward",
    "ipo_loss",
    "ipo_loss_backward",
    "ipo_loss_forward",
]

Pairs = Float[Array, "batch 2 *tokens"]


class DpoLossResiduals(NamedTuple):
    """The log-probabilities L of the policy and R of the reference: references, no copies."""

    L: Pairs
    R: Pairs


def dpo_loss_forward(
    L: Pairs, R: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[Losses, DpoLossResiduals]:
    """C_b = −(1 − ε) log σ(β h) − ε log σ(−β h) for each pair, h = Σ (ℓ − r) of the chosen − Σ (ℓ − r) of the rejected.

    It is sigmoid_cross_entropy of one logit β h for each pair, against the target 1 − ε.

    Args:
      L: log-probabilities by the policy, of the chosen answer at [:, 0] and the rejected one at [:, 1]; further axes,
        tokens, are summed over.
      R: the same by the reference model.
      beta: β > 0: the larger, the nearer the policy stays to the reference.
      label_smoothing: ε in [0, 1), the probability that a label is the wrong way round.
    Derivation: docs/derivations/losses/preferences.md (Rafailov et al. 2023)
    """
    h = _margin("dpo_loss_forward", L, R)
    check_positive("dpo_loss_forward", "beta", beta)
    check_share("dpo_loss_forward", "label_smoothing", label_smoothing)
    C, _ = sigmoid_cross_entropy.forward(beta * h, jnp.full_like(h, 1 - label_smoothing))
    return C.astype(jnp.result_type(L, R)), DpoLossResiduals(L, R)


def dpo_loss_backward(
    residuals: DpoLossResiduals, dC: Losses, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[Pairs, Pairs]:
    """Pull dC back through the preference loss, e being (1, −1): + for the chosen answer, − for the rejected one.

        dh = β dC ∘ (σ(β h) − (1 − ε))      dL = dh eᵀ      dR = −dL

    Derivation: docs/derivations/losses/preferences.md
    """
    L, R = check_residuals("dpo_loss_backward", residuals, DpoLossResiduals)
    check_losses_cotangent("dpo_loss_backward", dC, L, jnp.result_type(L, R))
    h = _margin("dpo_loss_backward", L, R)
    _, kept = sigmoid_cross_entropy.forward(beta * h, jnp.full_like(h, 1 - label_smoothing))
    slope, _ = sigmoid_cross_entropy.backward(kept, jnp.full_like(h, beta))
    return _cotangents(L, R, dC, slope)


dpo_loss = Rule(dpo_loss_forward, dpo_loss_backward)


class IpoLossResiduals(NamedTuple):
    """The log-probabilities L of the policy and R of the reference: references, no copies."""

    L: Pairs
    R: Pairs


def ipo_loss_forward(L: Pairs, R: Pairs, *, beta: float = 0.1) -> tuple[Losses, IpoLossResiduals]:
    """C_b = (h − 1 / (2 β))² for each pair, h as in dpo_loss: a margin to reach, and not to pass.

    Args:
      L, R: as for dpo_loss. (Some implementations take each answer's mean over tokens: divide L and R by their number.)
      beta: β > 0, τ in the paper.
    Derivation: docs/derivations/losses/preferences.md (Azar et al. 2024)
    """
    h = _margin("ipo_loss_forward", L, R)
    check_positive("ipo_loss_forward", "beta", beta)
    return jnp.square(h - 1 / (2 * beta)).astype(jnp.result_type(L, R)), IpoLossResiduals(L, R)


def ipo_loss_backward(residuals: IpoLossResiduals, dC: Losses, *, beta: float = 0.1) -> tuple[Pairs, Pairs]:
    """Pull dC back through C_b = (h − 1 / (2 β))².

        dh = 2 dC ∘ (h − 1 / (2 β))      dL = dh eᵀ      dR = −dL

    Derivation: docs/derivations/losses/preferences.md
    """
    L, R = check_residuals("ipo_loss_backward", residuals, IpoLossResiduals)
    check_losses_cotangent("ipo_loss_backward", dC, L, jnp.result_type(L, R))
    return _cotangents(L, R, dC, 2 * _margin("ipo_loss_backward", L, R) - 1 / beta)


ipo_loss = Rule(ipo_loss_forward, ipo_loss_backward)


def _margin(where: str, L: Pairs, R: Pairs) -> Losses:
    """h = Σ_t (L − R) e, in the dtype of sums."""
    check_array(where, "the log-probabilities L", L, min_ndim=2)
    if L.shape[1] != 2:
        raise InputError(f"{where}: L must have shape (batch, 2, ...), chosen and rejected, got {describe(L)}")
    check_array(where, "the reference's log-probabilities R", R)
    check_shape(where, "the reference's log-probabilities R", R, L.shape, "like L")
    ell, r = wide(L, R)
    return per_example((ell - r) * _signs(ell), ell.dtype)


def _signs(L: Pairs) -> Float[Array, "1 2 *ones"]:
    """eᵀ = (1, −1), against L."""
    return jnp.asarray([1, -1], L.dtype).reshape(1, 2, *[1] * (L.ndim - 2))


def _cotangents(L: Pairs, R: Pairs, dC: Losses, slope: Losses) -> tuple[Pairs, Pairs]:
    """(dC ∘ slope) eᵀ for every token of both answers, and its negative for the reference's."""
    dh = jnp.expand_dims(pulled(dC, slope, slope), tuple(range(1, L.ndim)))
    D = jnp.broadcast_to(dh * _signs(jnp.broadcast_to(dh, L.shape)), L.shape)
    return D.astype(L.dtype), (-D).astype(R.dtype)
