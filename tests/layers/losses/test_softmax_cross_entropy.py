"""softmax_cross_entropy reaches its rule, with its options."""

import jax
import jax.numpy as jnp
import numpy as np
from losses import assert_losses

import handgrad as hg

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
Z, Q = RNG.standard_normal(SHAPE) * 2, RNG.dirichlet(np.ones(3), SHAPE[:2])
LABELS = np.array([[0, 2], [1, 1], [2, 0], [0, 0]])
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0])


def cross_entropy(epsilon):
    def loss(z, y):
        q = jax.nn.one_hot(y, 3, dtype=z.dtype) if y.ndim == 2 else y
        q = q * (1 - epsilon) + epsilon / 3
        return -q * jnp.log(jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True))

    return loss


def language_model(z, y):
    s = 2 * jnp.tanh(z / 2)
    q = jax.nn.one_hot(y, 3, dtype=z.dtype) * CLASS_WEIGHTS.reshape(1, 1, 3)
    lse = jnp.log(jnp.exp(s).sum(-1, keepdims=True))
    return (y != 0)[..., None] * ((q * (lse - s)).sum(-1, keepdims=True) + 0.1 * lse**2)


def test_losses():
    assert_losses(
        *((hg.softmax_cross_entropy(), cross_entropy(0), Z, target) for target in (LABELS, Q)),
        *((hg.softmax_cross_entropy(0.2), cross_entropy(0.2), Z, target) for target in (LABELS, Q)),
        (
            hg.softmax_cross_entropy(class_weights=CLASS_WEIGHTS, ignore_index=0, z_loss=0.1, softcap=2.0),
            language_model,
            Z,
            LABELS,
        ),
    )
