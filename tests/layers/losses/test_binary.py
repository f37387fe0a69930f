"""Losses for binary classification: each reaches its rule, with its options."""

import jax.numpy as jnp
import numpy as np
from losses import assert_losses

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
Z, Y, BITS = RNG.standard_normal(SHAPE) * 2, RNG.uniform(0.05, 0.95, SHAPE), RNG.integers(0, 2, SHAPE)


def cross_entropy(p, y):
    return -y * jnp.log(p) - (1 - y) * jnp.log(1 - p)


def focal(gamma, of_one, of_zero):
    def loss(z, y):
        p = jnp.where(y == 1, 1 / (1 + jnp.exp(-z)), 1 / (1 + jnp.exp(z)))
        return -jnp.where(y == 1, of_one, of_zero) * (1 - p) ** gamma * jnp.log(p)

    return loss


def test_losses():
    assert_losses(
        (hg.sigmoid_cross_entropy(), lambda z, y: cross_entropy(1 / (1 + jnp.exp(-z)), y), Z, Y),
        (hg.binary_cross_entropy(), cross_entropy, 1 / (1 + np.exp(-Z)), Y),
        (layers.focal_loss(), focal(2, 1, 1), Z, BITS),
        (layers.focal_loss(1.5, alpha=0.25), focal(1.5, 0.25, 0.75), Z, BITS),
    )
