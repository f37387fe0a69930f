"""Straight-through estimators as layers."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_layers

from handgrad import layers

X = 2 * np.random.default_rng(0).standard_normal((3, 4))


def test_values_and_gradients():
    held = jax.lax.stop_gradient
    assert_layers(
        {
            "round": (layers.straight_through_round(), lambda x: x + held(jnp.round(x) - x)),
            "sign": (
                layers.straight_through_sign(0.5),
                lambda x: jnp.clip(x, -0.5, 0.5) + held(jnp.sign(x) - jnp.clip(x, -0.5, 0.5)),
            ),
        },
        X,
    )
