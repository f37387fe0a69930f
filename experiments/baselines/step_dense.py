"""A step of a deep stack of tanh blocks."""

import jax
import jax.numpy as jnp

from baselines.steps import stepping


def ways(*, depth, **sizes):
    """The loop over blocks rolled and unrolled."""

    def of(unroll):
        def loss(params, x, target):
            linear = params[0]

            def block(x, layer):
                return x + jnp.tanh(x @ layer[0] + layer[1]), None

            y, _ = jax.lax.scan(block, x, (linear.W, linear.b), unroll=unroll)
            return jnp.mean(jnp.sum((y - target) ** 2, axis=1))

        return loss

    rolled, unrolled = (stepping(of(unroll), clip=True)["jax.grad and optax"] for unroll in (1, depth))
    return {"jax.grad and optax": rolled, "jax.grad and optax, unrolled": unrolled}
