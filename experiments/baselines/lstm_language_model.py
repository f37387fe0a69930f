"""An LSTM language model in plain JAX: hoisted input products, a scan for each layer, optax's cross-entropy."""

import functools

import jax
import jax.numpy as jnp
import optax


def lstm(params, x, *, checkpoint):
    """(time, batch, n) to the same."""

    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(x + h @ params["u"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((x.shape[1], params["u"].shape[0]), x.dtype)
    x = x @ params["w"] + params["b"]
    step = jax.checkpoint(step, prevent_cse=False) if checkpoint else step
    return jax.lax.scan(step, (zeros, zeros), x)[1]


def loss(params, ids, following, *, checkpoint=False):
    """Cross-entropy summed over the tokens, its mean over the batch."""
    x = params["table"][ids.T]
    for layer in params["layers"]:
        x = lstm(layer, x, checkpoint=checkpoint)
    logits = x @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, following.T).sum(0).mean()


def ways(**sizes):
    """Value and gradient."""
    checkpointed = functools.partial(loss, checkpoint=True)
    return {"jax.grad": jax.value_and_grad(loss), "jax.checkpoint, steps": jax.value_and_grad(checkpointed)}


def parameters(theirs):
    """A table, a list of layers, and the head's weights."""
    layers = [{"w": layer.W, "u": layer.U, "b": layer.b} for layer in theirs["lstm"]]
    return {"table": theirs["embedding"].table, "layers": layers, "w": theirs["head"].W, "b": theirs["head"].b}
