"""Divergences: each reaches its rule, with its options."""

import jax.numpy as jnp
import numpy as np
from losses import assert_losses

from handgrad import layers

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
A, RATES = RNG.standard_normal(SHAPE), RNG.uniform(0.05, 0.95, SHAPE)
Q, COUNTS = RNG.dirichlet(np.ones(3), SHAPE[:2]), RNG.poisson(2, SHAPE)


def test_losses():
    assert_losses(
        (layers.kl_divergence(), lambda p, q: q * (jnp.log(q) - p), np.log(RATES), Q),
        (layers.kl_divergence(log_target=True), lambda p, q: jnp.exp(q) * (q - p), np.log(RATES), np.log(Q)),
        (layers.poisson_loss(), lambda a, y: jnp.exp(a) - y * a, A, COUNTS),
        (
            layers.poisson_loss(log_input=False, epsilon=0.1),
            lambda a, y: a - y * jnp.log(a + 0.1),
            RATES,
            COUNTS,
        ),
    )
