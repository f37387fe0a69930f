"""The formulas as TRL writes them, in PyTorch: values and all gradients, in float64."""

import numpy as np
from in_torch import assert_rules_agree
from rules.losses.in_torch import torch

from handgrad import rules

RNG = np.random.default_rng(0)
L = -RNG.gamma(2, 1, (4, 6))
OLD, REFERENCE = L + 0.3 * RNG.standard_normal((2, 4, 6))
A, REWARDS = RNG.standard_normal(4), RNG.standard_normal((3, 5))
MASK = RNG.uniform(size=(4, 6)) < 0.7
MASK[0] = False  # a mean over nothing


def grpo(logps, old, reference, advantages, mask, beta=0.04, low=0.2, high=0.2):
    """Of each sequence; TRL's own mean over sequences is left to the weights."""
    ratio = torch.exp(logps - old)
    free = ratio * advantages.unsqueeze(1)
    held = torch.clamp(ratio, 1 - low, 1 + high) * advantages.unsqueeze(1)
    loss = -torch.min(free, held)
    if beta:
        loss = loss + beta * (torch.exp(reference - logps) - (reference - logps) - 1)
    return (loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)


def ppo(logps, old, advantages, mask):
    return grpo(logps, old, None, advantages, mask, beta=0, low=0.1, high=0.3)


def advantages(rewards):
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def test_policies():
    assert_rules_agree(
        [
            (rules.grpo_loss, grpo, (L, OLD, REFERENCE, A, MASK)),
            (rules.ppo_loss.with_options(clip=0.1, clip_high=0.3), ppo, (L, OLD, A, MASK)),
            (rules.group_advantages, advantages, (REWARDS,)),
        ]
    )
