"""A deep stack of one residual block, a scan over its weights."""

import functools

import jax
import jax.numpy as jnp

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": functools.partial(jax.nn.gelu, approximate=False)}


def loss(params, x, target, *, activation, checkpoint, unroll):
    """Mean over the batch of the summed squared error."""

    def block(x, layer):
        return x + ACTIVATIONS[activation](x @ layer["w"] + layer["b"]), None

    y, _ = jax.lax.scan(jax.checkpoint(block, prevent_cse=False) if checkpoint else block, x, params, unroll=unroll)
    return jnp.mean(jnp.sum((y - target) ** 2, axis=-1))


def ways(*, activation, depth, **sizes):
    """Value and gradient, the loop rolled and unrolled."""
    forms = {
        "jax.grad": {"checkpoint": False, "unroll": 1},
        "jax.grad, unrolled": {"checkpoint": False, "unroll": depth},
        "jax.checkpoint": {"checkpoint": True, "unroll": 1},
    }
    return {
        name: jax.value_and_grad(functools.partial(loss, activation=activation, **form)) for name, form in forms.items()
    }


def parameters(theirs):
    """The stacked weights."""
    linear = theirs[0]
    return {"w": linear.W, "b": linear.b}
