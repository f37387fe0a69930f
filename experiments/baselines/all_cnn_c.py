"""All-CNN-C in plain JAX, without dropout."""

import jax
import optax
from jax import lax

# strides and padding of each convolution
PLAN = [(1, "SAME"), (1, "SAME"), (2, "SAME"), (1, "SAME"), (1, "SAME"), (2, "SAME")]
PLAN += [(1, "VALID"), (1, "SAME"), (1, "SAME")]


def conv(x, layer, stride, padding):
    """A convolution over (batch, height, width, features)."""
    y = lax.conv_general_dilated(x, layer["k"], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + layer["b"]


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    for layer, (stride, padding) in zip(params, PLAN, strict=True):
        x = jax.nn.relu(conv(x, layer, stride, padding))
    logits = x.mean(axis=(1, 2))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(**sizes):
    """Value and gradient."""
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(loss))}


def parameters(theirs):
    """A list of kernels k and biases b."""
    return [{"k": theirs[f"conv{i}"].K, "b": theirs[f"conv{i}"].b} for i in range(len(PLAN))]
