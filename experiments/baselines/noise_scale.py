"""The gradient noise scale (McCandlish et al. 2018) by vmap(jax.grad), and with the mean by a plain gradient."""

import jax
import jax.numpy as jnp

from baselines.networks import arguments, loss_of, per_example
from baselines.norms import squares

__all__ = ["arguments", "ways"]


def estimates(of_mean, mean, batch):
    """|G|², tr Σ and their ratio."""
    norm = (batch * of_mean - mean) / (batch - 1)
    trace = batch * (mean - of_mean) / (batch - 1)
    return norm, trace, trace / norm


def ways(*, of, **sizes):
    """Three numbers."""

    def written_out(params, x, target):
        grads = per_example(of)(params, x, target)
        of_mean = sum(jnp.sum(jnp.mean(g, axis=0) ** 2) for g in jax.tree.leaves(grads))
        return estimates(of_mean, jnp.mean(squares(grads)), x.shape[0])

    def beside_the_gradient(params, x, target):
        mean_loss = jax.grad(lambda params: jnp.mean(jax.vmap(loss_of(of), (None, 0, 0))(params, x, target)))
        of_mean = sum(jnp.sum(g**2) for g in jax.tree.leaves(mean_loss(params)))
        return estimates(of_mean, jnp.mean(squares(per_example(of)(params, x, target))), x.shape[0])

    return {"vmap(jax.grad)": written_out, "vmap(jax.grad) and jax.grad": beside_the_gradient}
