"""The hinge loss reaches its rule."""

import jax.numpy as jnp
import numpy as np
from losses import assert_losses

from handgrad import layers

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
A, Y = RNG.standard_normal(SHAPE) * 2, 2 * RNG.integers(0, 2, SHAPE) - 1


def test_losses():
    assert_losses(
        (layers.hinge_loss(), lambda a, y: jnp.maximum(0, 1 - a * y), A, Y),
    )
