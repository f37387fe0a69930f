"""The networks that per-example gradients are taken of, as the other modules of this folder have them."""

import functools

import jax

from baselines import gpt2, lenet5, mlp


def module_of(theirs):
    """By the names of its parameters."""
    if not isinstance(theirs, dict):
        return mlp
    return gpt2 if "body" in theirs else lenet5


def loss_of(of):
    """The loss of one example, (params, x, target) -> scalar."""
    losses = {
        "mlp": functools.partial(mlp.loss, activation="relu"),
        "lenet5": lenet5.loss,
        "gpt2-block": functools.partial(gpt2.loss, heads=4),
    }

    def one(params, x, target):
        return losses[of](params, x[None], target[None])

    return one


def parameters(theirs):
    """In their module's names."""
    return module_of(theirs).parameters(theirs)


def arguments(theirs, x, target):
    """The same batch."""
    return parameters(theirs), x, target


def per_example(of):
    """(params, x, target) -> each example's gradient, an axis in front of every leaf."""
    return jax.vmap(jax.grad(loss_of(of)), (None, 0, 0))
