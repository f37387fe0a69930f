"""A step of two residual convolutions."""

import jax.numpy as jnp
from jax import lax

from baselines.steps import stepping


def loss(params, x, target):
    """Mean over the batch of the summed squared error."""
    for (kernel, bias), _ in params:
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = x + jnp.tanh(y + bias)
    return jnp.mean(jnp.sum((x - target) ** 2, axis=(1, 2, 3)))


def ways(**sizes):
    """One way."""
    return stepping(loss, clip=True)
