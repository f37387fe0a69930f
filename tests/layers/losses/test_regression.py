"""Regression losses: each reaches its rule, with its options; and a loss from any rule."""

import jax
import jax.numpy as jnp
import numpy as np
from losses import assert_losses

import handgrad as hg

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
A, Y = RNG.standard_normal((2, *SHAPE)) * 2


def huber(delta):
    return lambda a, y: jnp.where(jnp.abs(a - y) <= delta, (a - y) ** 2 / 2, delta * jnp.abs(a - y) - delta**2 / 2)


def test_losses():
    assert_losses(
        (hg.squared_error(), lambda a, y: (a - y) ** 2, A, Y),
        (hg.l2_loss(), lambda a, y: (a - y) ** 2 / 2, A, Y),
        (hg.absolute_error(), lambda a, y: jnp.abs(a - y), A, Y),
        (hg.huber_loss(), huber(1.0), A, Y),
        (hg.huber_loss(delta=0.5), huber(0.5), A, Y),
    )


def test_a_loss_from_a_rule():
    def quartic_forward(A, Y, *, scale):
        return scale * jnp.sum((A - Y) ** 4, axis=1), (A, Y)

    def quartic_backward(residuals, dC, *, scale):
        A, Y = residuals
        dA = 4 * scale * dC[:, None] * (A - Y) ** 3
        return dA, -dA

    loss = hg.loss_from_rule(hg.Rule(quartic_forward, quartic_backward), scale=3.0)
    x, y = A[:, 0], Y[:, 0]
    value, gradient = jax.jit(lambda x: hg.value_and_grad(hg.identity(), loss, argnums=1)((), x, y))(x)
    np.testing.assert_allclose(value, 3 * ((x - y) ** 4).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(gradient, 12 * (x - y) ** 3 / 4, rtol=1e-12)
