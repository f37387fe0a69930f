"""DeepOBS's 3C3D in plain JAX."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

CONVOLUTIONS = {"conv0": "VALID", "conv1": "VALID", "conv2": "SAME"}
DENSE = ("fc0", "fc1", "fc2")


def conv(x, layer, padding):
    """A convolution over (batch, height, width, features)."""
    return lax.conv_general_dilated(x, layer["k"], (1, 1), padding, dimension_numbers=NHWC) + layer["b"]


NHWC = ("NHWC", "HWIO", "NHWC")


def max_pool(x):
    """Over 3 × 3 elements, every second one."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    for name, padding in CONVOLUTIONS.items():
        x = max_pool(jax.nn.relu(conv(x, params[name], padding)))
    x = x.reshape(x.shape[0], -1)
    for name in DENSE:
        x = x @ params[name]["w"] + params[name]["b"]
        x = x if name == "fc2" else jax.nn.relu(x)
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()


def ways(**sizes):
    """Value and gradient."""
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(loss))}


def parameters(theirs):
    """Kernels k or weights w, and biases b."""
    convs = {name: {"k": theirs[name].K, "b": theirs[name].b} for name in CONVOLUTIONS}
    return convs | {name: {"w": theirs[name].W, "b": theirs[name].b} for name in DENSE}
