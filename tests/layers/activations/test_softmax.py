"""Every layer of the softmax family reaches its own rule."""

import jax.numpy as jnp
import numpy as np
from helpers import assert_layers

import handgrad as hg

X = np.random.default_rng(0).standard_normal((4, 2, 3)) * 2


def log_softmax(x):
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def test_the_softmax_family():
    assert_layers(
        {
            "softmax": (hg.softmax(), lambda x: jnp.exp(log_softmax(x))),
            "log_softmax": (hg.log_softmax(), log_softmax),
            "logsumexp": (hg.logsumexp(), lambda x: jnp.log(jnp.exp(x).sum(-1))),
        },
        X,
    )
