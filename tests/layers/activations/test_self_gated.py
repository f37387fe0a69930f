"""Every self-gated activation's layer reaches its own rule, with its options; and a layer of one's own rule."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_layers

import handgrad as hg

X = np.random.default_rng(0).standard_normal((4, 2, 3)) * 2


def tanh_form(x):
    return x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))) / 2


def test_self_gated():
    assert_layers(
        {
            "silu": (hg.silu(), lambda x: x / (1 + jnp.exp(-x))),
            "silu, recompute": (hg.silu(residuals="recompute"), lambda x: x / (1 + jnp.exp(-x))),
            "mish": (hg.mish(), lambda x: x * jnp.tanh(jnp.log(1 + jnp.exp(x)))),
            "gelu": (hg.gelu(), lambda x: x * (1 + jax.scipy.special.erf(x / jnp.sqrt(2.0))) / 2),
            "gelu, tanh form": (hg.gelu(approximate=True), tanh_form),
        },
        X,
    )


def test_a_layer_from_a_rule_of_ones_own():
    def cube_forward(X, *, scale):
        return scale * X**3, X

    def cube_backward(residuals, dY, *, scale):
        return (3 * scale * residuals**2 * dY,)

    layer = hg.from_rule(hg.Rule(cube_forward, cube_backward), scale=2.0)
    assert_layers({"cube": (layer, lambda x: 2 * x * x * x)}, X)
