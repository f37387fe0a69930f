"""Losses of a policy by its log-probabilities: PPO's clipped surrogate, GRPO, and the advantages within a group."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_flags,
    check_positive,
    check_residuals,
    describe,
)
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._actions import (
    Actions,
    Advantages,
    Mask,
    Reduction,
    check_actions,
    counting,
    of_advantages,
    penalty,
    surrogate,
    weight_of_actions,
)
from handgrad.rules.losses._losses import Losses, counted, length_and_direction, per_example, pulled, to_elements

__all__ = [
    "GroupAdvantagesResiduals",
    "GrpoLossResiduals",
    "PpoLossResiduals",
    "group_advantages",
    "group_advantages_backward",
    "group_advantages_forward",
    "grpo_loss",
    "grpo_loss_backward",
    "grpo_loss_forward",
    "ppo_loss",
    "ppo_loss_backward",
    "ppo_loss_forward",
]

Groups = Float[Array, "batch group"]


class PpoLossResiduals(NamedTuple):
    """The arguments L, L_old, A and mask: references, no copies."""

    L: Actions
    L_old: Actions
    A: Advantages
    mask: Mask | None


def ppo_loss_forward(
    L: Actions,
    L_old: Actions,
    A: Advantages,
    mask: Mask | None = None,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: Reduction = "mean",
) -> tuple[Losses, PpoLossResiduals]:
    """C_b = −Σ_t w_t min(ρ_t a_t, clip(ρ_t, 1 − ε, 1 + ε⁺) a_t), ρ = e^(ℓ − ℓ_old): the clipped surrogate.

    Args:
      L: log-probabilities of the actions, or tokens, by the policy.
      L_old: the same by the policy that drew them.
      A: advantages: of each action (L's shape), of each sequence, or of each example (L's first axes).
      mask: which actions count; the others may hold anything, NaN too. None: all.
      clip: ε in (0, 1).
      clip_high: ε⁺ > 0; None stands for ε.
      reduction: "mean" over the actions of a sequence that count (the last axis), then over an example's sequences (the
        axes between): w = 1 / their number; "sum": w = 1.
    Derivation: docs/derivations/losses/policies.md (Schulman et al. 2017)
    """
    where = "ppo_loss_forward"
    check_actions(where, L, A, mask, {"L_old": L_old}, clip, clip_high)
    ell, old, a = counting(mask, L, L_old, A)
    w = weight_of_actions(where, ell, mask, reduction)
    S, _ = surrogate(ell - old, a, clip, clip_high)
    return per_example(-w * counted(a, S) * a, jnp.result_type(L, L_old, A)), PpoLossResiduals(L, L_old, A, mask)


def ppo_loss_backward(
    residuals: PpoLossResiduals,
    dC: Losses,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: Reduction = "mean",
) -> tuple[Actions, Actions, Advantages, None]:
    """Pull dC back through the clipped surrogate; a ratio at the bound itself still has its slope.

        dL = −dC ∘ W ∘ A ∘ ρ, 0 where a > 0 and ρ > 1 + ε⁺ or a < 0 and ρ < 1 − ε      dL_old = −dL
        dA = −dC ∘ W ∘ (ρ or its bound)

    Derivation: docs/derivations/losses/policies.md
    """
    where = "ppo_loss_backward"
    L, L_old, A, mask = check_residuals(where, residuals, PpoLossResiduals)
    ell, old, a = counting(mask, L, L_old, A)
    dC = to_elements(where, dC, L, jnp.result_type(L, L_old, A)) * weight_of_actions(where, ell, mask, reduction)
    S, slope = surrogate(ell - old, a, clip, clip_high)
    D = pulled(-dC, counted(a, slope) * a, ell)
    return D.astype(L.dtype), (-D).astype(L_old.dtype), of_advantages(pulled(-dC, S, a), A), None


ppo_loss = Rule(ppo_loss_forward, ppo_loss_backward)


class GrpoLossResiduals(NamedTuple):
    """The arguments L, L_old, L_reference, A and mask: references, no copies."""

    L: Actions
    L_old: Actions
    L_reference: Actions
    A: Advantages
    mask: Mask | None


def grpo_loss_forward(
    L: Actions,
    L_old: Actions,
    L_reference: Actions,
    A: Advantages,
    mask: Mask | None = None,
    *,
    beta: float = 0.04,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: Reduction = "mean",
) -> tuple[Losses, GrpoLossResiduals]:
    """ppo_loss plus a penalty for leaving a reference policy: C_b + β Σ_t w_t (e^r − 1 − r), r = ℓ_reference − ℓ.

    e^r − 1 − r (k3) is positive, and its mean over the policy's own actions is KL(policy ‖ reference).

    Args:
      L, L_old, A, mask, clip, clip_high, reduction: as for ppo_loss; A as `group_advantages` makes them.
      L_reference: log-probabilities by the reference policy.
      beta: β > 0, the weight of the penalty. Without one, ppo_loss is the loss.
    Derivation: docs/derivations/losses/policies.md (Shao et al. 2024)
    """
    where = "grpo_loss_forward"
    check_actions(where, L, A, mask, {"L_old": L_old, "L_reference": L_reference}, clip, clip_high)
    check_positive(where, "beta", beta)
    ell, old, reference, a = counting(mask, L, L_old, L_reference, A)
    w = weight_of_actions(where, ell, mask, reduction)
    S, _ = surrogate(ell - old, a, clip, clip_high)
    C = w * (beta * penalty(reference - ell) - counted(a, S) * a)
    dtype = jnp.result_type(L, L_old, L_reference, A)
    return per_example(C, dtype), GrpoLossResiduals(L, L_old, L_reference, A, mask)


def grpo_loss_backward(
    residuals: GrpoLossResiduals,
    dC: Losses,
    *,
    beta: float = 0.04,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: Reduction = "mean",
) -> tuple[Actions, Actions, Actions, Advantages, None]:
    """Pull dC back through ppo_loss and the penalty, whose slope for r is e^r − 1.

        dL_reference = β dC ∘ W ∘ (e^R − 1)      dL = ppo_loss's − dL_reference      dL_old, dA as in ppo_loss

    Derivation: docs/derivations/losses/policies.md
    """
    where = "grpo_loss_backward"
    L, L_old, L_reference, A, mask = check_residuals(where, residuals, GrpoLossResiduals)
    dtype = jnp.result_type(L, L_old, L_reference, A)
    ell, old, reference, a = counting(mask, L, L_old, L_reference, A)
    dC = to_elements(where, dC, L, dtype) * weight_of_actions(where, ell, mask, reduction)
    S, slope = surrogate(ell - old, a, clip, clip_high)
    D, K = pulled(-dC, counted(a, slope) * a, ell), pulled(dC, beta * jnp.expm1(reference - ell), ell)
    dA = of_advantages(pulled(-dC, S, a), A)
    return (D - K).astype(L.dtype), (-D).astype(L_old.dtype), K.astype(L_reference.dtype), dA, None


grpo_loss = Rule(grpo_loss_forward, grpo_loss_backward)


class GroupAdvantagesResiduals(NamedTuple):
    """R: the rewards, a reference."""

    R: Groups


def group_advantages_forward(
    R: Groups, *, scale: bool = True, epsilon: float = 1e-4
) -> tuple[Groups, GroupAdvantagesResiduals]:
    """A = (R − m 1ᵀ) / (σ + ε): rewards of several answers to one prompt, against the mean m of their group.

    Args:
      R: one row for each prompt, at least two answers.
      scale: False leaves out the division by σ + ε, σ² = Σ (r − m)² / (group − 1).
      epsilon: ε > 0; unused without scale.
    Derivation: docs/derivations/losses/policies.md (Shao et al. 2024; without scale, Liu et al. 2025)
    """
    where = "group_advantages_forward"
    check_array(where, "the rewards R", R, min_ndim=2)
    if R.ndim != 2 or R.shape[1] < 2:
        raise InputError(f"{where}: the rewards R must have shape (batch, group), group at least 2, got {describe(R)}")
    check_positive(where, "epsilon", epsilon)
    check_flags(where, scale=scale)
    centered, sigma, _ = _standardized(R)
    return (centered / (sigma + epsilon) if scale else centered).astype(R.dtype), GroupAdvantagesResiduals(R)


def group_advantages_backward(
    residuals: GroupAdvantagesResiduals, dA: Groups, *, scale: bool = True, epsilon: float = 1e-4
) -> tuple[Groups]:
    """Pull dA back through A = (R − m 1ᵀ) / (σ + ε), with U = (R − m 1ᵀ) / σ, 0 where σ is 0.

        dR = (dA − m(dA) 1ᵀ − σ / (σ + ε) ⟨dA, U⟩ / (group − 1) ∘ U) / (σ + ε)      ⟨·,·⟩ and m row by row

    Derivation: docs/derivations/losses/policies.md
    """
    (R,) = check_residuals("group_advantages_backward", residuals, GroupAdvantagesResiduals)
    check_cotangent("group_advantages_backward", dA, R.shape, R.dtype, name="dA", of="A")
    (dA,) = wide(dA)
    across = dA - jnp.mean(dA, axis=1, keepdims=True)
    if not scale:
        return (across.astype(R.dtype),)
    _, sigma, U = _standardized(R)
    along = jnp.sum(dA * U, axis=1, keepdims=True) / (R.shape[1] - 1)
    return (((across - sigma / (sigma + epsilon) * along * U) / (sigma + epsilon)).astype(R.dtype),)


group_advantages = Rule(group_advantages_forward, group_advantages_backward)


def _standardized(R: Groups) -> tuple[Groups, Float[Array, "batch 1"], Groups]:
    """R − m 1ᵀ, σ and their quotient, 0 where σ is 0; in the dtype of sums. Equal rewards differ by 0, exactly, where
    the mean of them may be rounded."""
    (R,) = wide(R)
    D, root = R - jax.lax.stop_gradient(R[:, :1]), math.sqrt(R.shape[1] - 1)
    centered = D - jnp.mean(D, axis=1, keepdims=True)
    length, direction = length_and_direction(centered)
    return centered, length / root, direction * root
