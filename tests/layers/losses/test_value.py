"""ppo_value_loss as a Loss."""

import jax
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules

V, R = np.random.default_rng(0).standard_normal((2, 3, 4))


def test_it_reaches_its_rule():
    loss, target = hg.ppo_value_loss(clip=0.5, reduction="sum"), layers.ValueTarget(V / 2, R, R > 0)

    @jax.jit
    def both(V):
        losses, kept = loss.forward(V, target)
        truth, pull = jax.vjp(lambda V: rules.ppo_value_loss(V, *target, clip=0.5, reduction="sum"), V)
        return (losses, loss.backward(kept, losses)), (truth, *pull(truth))

    assert_same(*both(V))
    with pytest.raises(hg.InputError, match=r"^ppo_value_loss: target must be a ValueTarget, got float64"):
        loss.forward(V, R)
