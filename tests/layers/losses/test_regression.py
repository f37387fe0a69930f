"""Losses of the error as Losses, and one of a user's own."""

import jax
import jax.numpy as jnp
import numpy as np
from layers.losses.as_losses import check_losses

import handgrad as hg


def test_values_and_gradients():
    check_losses("regression")


def test_a_loss_from_a_rule():
    def quartic_forward(A, Y, *, scale):
        return scale * jnp.sum((A - Y) ** 4, axis=1), (A, Y)

    def quartic_backward(residuals, dC, *, scale):
        A, Y = residuals
        dA = 4 * scale * dC[:, None] * (A - Y) ** 3
        return dA, -dA

    loss = hg.loss_from_rule(hg.Rule(quartic_forward, quartic_backward), scale=3.0)
    x, y = np.random.default_rng(0).standard_normal((2, 4, 3))
    value, gradient = jax.jit(lambda x: hg.value_and_grad(hg.identity(), loss, argnums=1)((), x, y))(x)
    np.testing.assert_allclose(value, 3 * ((x - y) ** 4).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(gradient, 12 * (x - y) ** 3 / 4, rtol=1e-12)
