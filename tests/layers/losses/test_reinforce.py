"""reinforce_loss as a Loss."""

import jax
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules

L, R = np.random.default_rng(0).standard_normal((2, 3, 4))


def test_it_reaches_its_rule():
    loss, target = hg.reinforce_loss(reduction="mean"), layers.ReturnsTarget(R, R / 2, R > 0)

    @jax.jit
    def both(L):
        losses, kept = loss.forward(L, target)
        truth, pull = jax.vjp(lambda L: rules.reinforce_loss(L, *target, reduction="mean"), L)
        return (losses, loss.backward(kept, losses)), (truth, *pull(truth))

    assert_same(*both(L))
    with pytest.raises(hg.InputError, match=r"^reinforce_loss: target must be a ReturnsTarget, got float64"):
        loss.forward(L, R)
