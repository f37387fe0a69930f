"""The surrogate loss as PyTorch programs write it, returns and baseline detached: value and gradients, in float64."""

import numpy as np
from in_torch import assert_rules_agree

from handgrad import rules

L, R, B = np.random.default_rng(0).standard_normal((3, 4, 5))


def surrogate(log_probability, returns, baseline):
    advantage = (returns - baseline).detach()
    return -(log_probability * advantage).sum(-1) + 0 * (returns + baseline).sum()


def test_score_function():
    assert_rules_agree([(rules.reinforce_loss, surrogate, (L, R, B))])
