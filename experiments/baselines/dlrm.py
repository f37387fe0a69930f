"""A recommender in plain JAX: one table of embeddings, two mlps, optax's sigmoid cross-entropy."""

import jax
import jax.numpy as jnp
import optax


def mlp(params, x):
    """relu after all but the last."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def loss(params, x, target):
    """Mean binary cross-entropy."""
    numbers, ids = x
    looked_up = params["table"][ids].reshape(ids.shape[0], -1)
    logits = mlp(params["top"], jnp.concatenate([mlp(params["bottom"], numbers), looked_up], axis=1))
    return optax.sigmoid_binary_cross_entropy(logits, target).mean()


def ways(**sizes):
    """Value and gradient."""
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint": jax.value_and_grad(jax.checkpoint(loss))}


def parameters(theirs):
    """A table and two lists of weights."""
    (bottom, embedding), top = theirs["meeting"], theirs["top"]
    both = {"bottom": bottom, "top": top}
    lists = {name: [{"w": one.W, "b": one.b} for one in chain[::2]] for name, chain in both.items()}
    return {"table": embedding.table, **lists}
