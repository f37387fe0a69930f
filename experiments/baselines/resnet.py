"""A CIFAR ResNet in plain JAX, with batch norm's statistics of the batch."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

AROUND = ((1, 1), (1, 1))


def conv(x, k, stride=1, padding=AROUND):
    """A convolution over (batch, height, width, features)."""
    return lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def batch_norm(x, layer, eps=1e-5):
    """As in training."""
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + eps) * layer["scale"] + layer["shift"]


def block(x, layer, stride):
    """Two convolutions and their shortcut."""
    y = jax.nn.relu(batch_norm(conv(x, layer["k1"], stride), layer["norm1"]))
    y = batch_norm(conv(y, layer["k2"]), layer["norm2"])
    if "shortcut" in layer:
        x = batch_norm(conv(x, layer["shortcut"], stride, "VALID"), layer["norm"])
    return jax.nn.relu(x + y)


def loss(params, x, labels, *, checkpoint=False):
    """Mean cross-entropy of a batch."""
    of_block = jax.checkpoint(block, static_argnums=2) if checkpoint else block
    x = jax.nn.relu(batch_norm(conv(x, params["k"]), params["norm"]))
    for i, stage in enumerate(params["stages"]):
        for j, layer in enumerate(stage):
            x = of_block(x, layer, 2 if i and not j else 1)
    logits = x.mean(axis=(1, 2)) @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(**sizes):
    """Value and gradient; or with each block's inside computed again."""

    def of_blocks(params, x, labels):
        return loss(params, x, labels, checkpoint=True)

    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint, blocks": jax.value_and_grad(of_blocks)}


def norm(theirs):
    """Scale and shift."""
    return {"scale": theirs.gamma, "shift": theirs.beta}


def parameters(theirs):
    """A list of blocks for each stage."""
    stages, count = [], 1
    while f"layer{count}" in theirs:
        stages.append([of_block(one["residual"]) for one in theirs[f"layer{count}"]])
        count += 1
    head = {"w": theirs["fc"].W, "b": theirs["fc"].b}
    return {"k": theirs["conv1"].K, "norm": norm(theirs["bn1"]), "stages": stages, **head}


def of_block(theirs):
    """One block's parameters; its shortcut's too, where it has some."""
    shortcut = {}
    if "shortcut" in theirs:
        kernel, its_norm = theirs["shortcut"]
        shortcut, theirs = {"shortcut": kernel.K, "norm": norm(its_norm)}, theirs["inside"]
    kernels = {f"k{i}": theirs[f"conv{i}"].K for i in (1, 2)}
    return kernels | {f"norm{i}": norm(theirs[f"bn{i}"]) for i in (1, 2)} | shortcut
