"""K-FAC's two factors of each weight of an mlp: zeros are added to every layer's output, and differentiated."""

import jax
import jax.numpy as jnp
import optax

from baselines.networks import arguments

__all__ = ["arguments", "ways"]


def losses(added, params, x, labels):
    """The sum over the batch; and every layer's input."""
    inputs = []
    for i, (layer, zeros) in enumerate(zip(params, added, strict=True)):
        inputs.append(x)
        x = x @ layer["w"] + layer["b"] + zeros
        x = jax.nn.relu(x) if i < len(params) - 1 else x
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).sum(), inputs


def factors(params, x, labels):
    """(A, G) of each weight, means over the batch."""
    batch = x.shape[0]
    zeros = [jnp.zeros((batch, layer["w"].shape[1]), x.dtype) for layer in params]
    deltas, inputs = jax.grad(losses, has_aux=True)(zeros, params, x, labels)
    return [(a.T @ a / batch, delta.T @ delta / batch) for a, delta in zip(inputs, deltas, strict=True)]


def ways(**sizes):
    """A list of pairs."""
    return {"jax.grad of added zeros": factors}
