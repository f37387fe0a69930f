"""A MobileNet's blocks in plain JAX: depthwise and 1 × 1 convolutions with batch norm."""

import jax
import jax.numpy as jnp
import optax
from jax import lax


def conv(x, k, stride=1, groups=1):
    """A convolution over (batch, height, width, features)."""
    return lax.conv_general_dilated(
        x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def norm_relu(x, layer, eps=1e-5):
    """Batch norm as in training, and relu."""
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return jax.nn.relu((x - mean) * lax.rsqrt(variance + eps) * layer["scale"] + layer["shift"])


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    x = norm_relu(conv(x, params["stem"]["k"], stride=2), params["stem"])
    for block in params["blocks"]:
        x = norm_relu(conv(x, block["depthwise"]["k"], groups=x.shape[-1]), block["depthwise"])
        x = norm_relu(conv(x, block["pointwise"]["k"]), block["pointwise"])
    logits = x.mean(axis=(1, 2)) @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(**sizes):
    """Value and gradient."""
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(loss))}


def unit(theirs):
    """A kernel, and its norm's scale and shift."""
    return {"k": theirs["conv"].K, "scale": theirs["norm"].gamma, "shift": theirs["norm"].beta}


def parameters(theirs):
    """A list of blocks."""
    blocks = []
    while f"depthwise{len(blocks)}" in theirs:
        blocks.append({name: unit(theirs[f"{name}{len(blocks)}"]) for name in ("depthwise", "pointwise")})
    return {"stem": unit(theirs["stem"]), "blocks": blocks, "w": theirs["fc"].W, "b": theirs["fc"].b}
