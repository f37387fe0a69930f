"""Squared norms of per-example gradients by vmap(jax.grad)."""

import jax
import jax.numpy as jnp

from baselines.networks import arguments, per_example

__all__ = ["arguments", "squares", "ways"]


def squares(grads):
    """‖g_b‖² of each example."""
    return sum(jnp.sum(g.reshape(g.shape[0], -1) ** 2, axis=1) for g in jax.tree.leaves(grads))


def ways(*, of, **sizes):
    """(batch,)."""
    return {"vmap(jax.grad)": lambda *batch: squares(per_example(of)(*batch))}
