"""Losses of a policy, whose target is what was recorded when it acted; and the advantages within a group."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, Loss, from_rule
from handgrad.rule import Rule
from handgrad.rules.losses._actions import Actions, Advantages, Mask, Reduction

__all__ = ["PolicyTarget", "group_advantages", "grpo_loss", "ppo_loss"]


class PolicyTarget(NamedTuple):
    """What `ppo_loss` and `grpo_loss` compare log-probabilities (batch, ...) of actions with.

    Attributes:
      old: log-probabilities by the policy that drew the actions.
      advantages: of each action, each sequence or each example.
      reference: log-probabilities by the reference policy, for grpo_loss.
      mask: which actions count; None: all.
    """

    old: Actions
    advantages: Advantages
    reference: Actions | None = None
    mask: Mask | None = None


def ppo_loss(clip: float = 0.2, *, clip_high: float | None = None, reduction: Reduction = "mean") -> Loss:
    """C_b = −Σ w min(ρ a, clip(ρ) a), ρ = e^(ℓ − ℓ_old), against a PolicyTarget."""

    def arguments(target: PolicyTarget) -> tuple[Array | None, ...]:
        if target.reference is not None:
            raise InputError("ppo_loss: target.reference must be None (grpo_loss has a penalty for leaving it)")
        return target.old, target.advantages, target.mask

    return _against(rules.ppo_loss, arguments, clip=clip, clip_high=clip_high, reduction=reduction)


def grpo_loss(
    beta: float = 0.04, *, clip: float = 0.2, clip_high: float | None = None, reduction: Reduction = "mean"
) -> Loss:
    """ppo_loss and β Σ w (e^r − 1 − r), r = ℓ_reference − ℓ, against a PolicyTarget.

    Its advantages come from `rules.group_advantages(rewards)`, rewards of (batch, group); log-probabilities are then
    (batch, group, tokens).
    """

    def arguments(target: PolicyTarget) -> tuple[Array | None, ...]:
        if target.reference is None:
            raise InputError("grpo_loss: target.reference must be log-probabilities, got None (see ppo_loss)")
        return target.old, target.reference, target.advantages, target.mask

    return _against(rules.grpo_loss, arguments, beta=beta, clip=clip, clip_high=clip_high, reduction=reduction)


def group_advantages(*, scale: bool = True, epsilon: float = 1e-4) -> Layer:
    """A = (R − m 1ᵀ) / (σ + ε) of rewards (batch, group)."""
    return from_rule(rules.group_advantages, scale=scale, epsilon=epsilon)


def _against(
    rule: Rule[..., Array], arguments: Callable[[PolicyTarget], tuple[Array | None, ...]], **options: object
) -> Loss:
    forward, backward = rule.with_options(**options)

    def of_target(prediction: Array, target: PolicyTarget) -> tuple[Array, PyTree]:
        if not isinstance(target, PolicyTarget):
            raise InputError(f"{rule.__name__}: target must be a PolicyTarget, got {describe(target)}")
        return forward(prediction, *arguments(target))

    return Loss(of_target, lambda residuals, dloss: backward(residuals, dloss)[0])
