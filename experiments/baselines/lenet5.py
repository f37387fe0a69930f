"""LeNet-5 in plain JAX."""

import jax
import jax.numpy as jnp
import optax
from jax import lax


def conv(x, layer, padding):
    """A convolution over (batch, height, width, features)."""
    return lax.conv_general_dilated(x, layer["k"], (1, 1), padding, dimension_numbers=NHWC) + layer["b"]


def average_pool(x):
    """Over 2 × 2 elements."""
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


NHWC = ("NHWC", "HWIO", "NHWC")


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    x = average_pool(jnp.tanh(conv(x, params["conv1"], "SAME")))
    x = average_pool(jnp.tanh(conv(x, params["conv2"], "VALID")))
    x = x.reshape(x.shape[0], -1)
    for name in ("fc1", "fc2"):
        x = jnp.tanh(x @ params[name]["w"] + params[name]["b"])
    logits = x @ params["fc3"]["w"] + params["fc3"]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(**sizes):
    """Value and gradient."""
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(loss))}


def parameters(theirs):
    """Kernels k or weights w, and biases b."""
    convs = {name: {"k": theirs[name].K, "b": theirs[name].b} for name in ("conv1", "conv2")}
    return convs | {name: {"w": theirs[name].W, "b": theirs[name].b} for name in ("fc1", "fc2", "fc3")}
