"""The sum of per-example gradients clipped to norm 1 (DP-SGD): written out, and in two passes by weighted losses."""

import jax
import jax.numpy as jnp

from baselines.networks import arguments, loss_of, parameters as results, per_example
from baselines.norms import squares

__all__ = ["arguments", "results", "ways"]


def weights(grads):
    """min(1, 1 / ‖g_b‖)."""
    return jnp.minimum(1, jax.lax.rsqrt(squares(grads)))


def ways(*, of, **sizes):
    """Gradients like params."""

    def written_out(*batch):
        grads = per_example(of)(*batch)
        return jax.tree.map(lambda g: jnp.tensordot(weights(grads), g, 1), grads)

    def in_two_passes(params, x, target):
        scale = weights(per_example(of)(params, x, target))

        def weighted(params):
            return jnp.vdot(scale, jax.vmap(loss_of(of), (None, 0, 0))(params, x, target))

        return jax.grad(weighted)(params)

    return {"vmap(jax.grad)": written_out, "vmap(jax.grad), then weighted": in_two_passes}
