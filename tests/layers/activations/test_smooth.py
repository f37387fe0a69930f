"""Every smooth activation's layer reaches its own rule, with its options."""

import jax.numpy as jnp
import numpy as np
from helpers import assert_layers

import handgrad as hg

X = np.random.default_rng(0).standard_normal((4, 2, 3)) * 2


def tanh(x):
    return (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x))


def test_smooth():
    assert_layers(
        {
            "identity": (hg.identity(), lambda x: x),
            "sigmoid": (hg.sigmoid(), lambda x: 1 / (1 + jnp.exp(-x))),
            "sigmoid, recompute": (hg.sigmoid(residuals="recompute"), lambda x: 1 / (1 + jnp.exp(-x))),
            "tanh": (hg.tanh(), tanh),
            "tanh, recompute": (hg.tanh(residuals="recompute"), tanh),
            "softplus": (hg.softplus(), lambda x: jnp.log(1 + jnp.exp(x))),
        },
        X,
    )
