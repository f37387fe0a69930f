"""Recurrent layers in plain JAX: a scan over time, the input's product inside of it or hoisted out."""

import functools

import jax
import jax.numpy as jnp


def rnn(params, x, h):
    """Elman's step; x is the input's product already."""
    h = jnp.tanh(x + h @ params["u"])
    return h, h


def lstm(params, x, state):
    """The step with gates i, f, g, o."""
    h, c = state
    i, f, g, o = jnp.split(x + h @ params["u"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(params, x, h):
    """The step that resets after the product."""
    x_r, x_z, x_n = jnp.split(x, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(h @ params["u"], 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * (h_n + params["c"]))
    h = (1 - z) * n + z * h
    return h, h


STEPS = {"rnn": rnn, "lstm": lstm, "gru": gru}


def loss(params, x, target, *, cell, hoisted=True, checkpoint=False):
    """Mean over the batch of the summed squared error."""
    h = jnp.zeros((x.shape[0], params["u"].shape[0]), x.dtype)
    x = jnp.swapaxes(x, 0, 1)
    x = x @ params["w"] + params["b"] if hoisted else x

    def step(state, x):
        x = x if hoisted else x @ params["w"] + params["b"]
        return STEPS[cell](params, x, state)

    step = jax.checkpoint(step, prevent_cse=False) if checkpoint else step
    _, y = jax.lax.scan(step, (h, h) if cell == "lstm" else h, x)
    return jnp.mean(jnp.sum((jnp.swapaxes(y, 0, 1) - target) ** 2, axis=(1, 2)))


def ways(*, cell, **sizes):
    """Value and gradient."""
    forms = {"jax.grad, hoisted": {}, "jax.grad, scan": {"hoisted": False}, "jax.checkpoint": {"checkpoint": True}}
    return {name: jax.value_and_grad(functools.partial(loss, cell=cell, **form)) for name, form in forms.items()}


def parameters(theirs):
    """Of the input w, of the state u, biases b; a gru's c besides."""
    return {name.lower(): a for name, a in theirs._asdict().items()}
