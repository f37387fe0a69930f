"""Every rectifier's layer reaches its own rule, with its options; params that no activation has."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_layers

import handgrad as hg

X = np.random.default_rng(0).standard_normal((4, 2, 3)) * 2


def elu(x, alpha):
    return jnp.where(x > 0, x, alpha * (jnp.exp(jnp.minimum(x, 0)) - 1))


def test_rectifiers():
    assert_layers(
        {
            "relu": (hg.relu(), lambda x: x * (x > 0)),
            "relu, mask": (hg.relu(residuals="mask"), lambda x: x * (x > 0)),
            "leaky_relu": (hg.leaky_relu(), lambda x: jnp.where(x > 0, x, 0.01 * x)),
            "leaky_relu, 0.3": (hg.leaky_relu(0.3), lambda x: jnp.where(x > 0, x, 0.3 * x)),
            "elu": (hg.elu(), lambda x: elu(x, 1.0)),
            "elu, 0.4": (hg.elu(alpha=0.4), lambda x: elu(x, 0.4)),
            "selu": (hg.selu(), lambda x: 1.0507009873554804934 * elu(x, 1.6732632423543772848)),
        },
        X,
    )


def test_params_of_another_model():
    for params in ({}, None, (X,), [], hg.LinearParams(jnp.ones(3)), np.ones(1), np.ones(3), jnp.ones(3)):
        with pytest.raises(hg.InputError, match=r"^relu_forward: params must be \(\), got "):
            hg.relu().forward(params, X)
