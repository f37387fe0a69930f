"""A multi-layer perceptron in plain JAX: a list of weights, a loop, optax's cross-entropy."""

import functools

import jax
import optax

ACTIVATIONS = {
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "tanh": jax.numpy.tanh,
}


def loss(params, x, labels, *, activation):
    """Mean cross-entropy of a batch."""
    *hidden, last = params
    for layer in hidden:
        x = ACTIVATIONS[activation](x @ layer["w"] + layer["b"])
    logits = x @ last["w"] + last["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(*, activation, **sizes):
    """Value and gradient."""
    objective = functools.partial(loss, activation=activation)
    return {"jax.grad": jax.value_and_grad(objective), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(objective))}


def parameters(theirs):
    """The list of weights, of a chain of linear layers and activations."""
    return [{"w": layer.W, "b": layer.b} for layer in theirs[::2]]
