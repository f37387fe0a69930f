"""Similarity losses as Losses, and keys that are learned."""

import jax
import jax.numpy as jnp
import numpy as np
from layers.losses.as_losses import check_losses

import handgrad as hg


def test_values_and_gradients():
    check_losses("similarity")


def test_keys_that_are_learned():
    """The layer gives the keys of info_nce no gradient; the rule, called, gives them theirs."""
    A, Y = np.random.default_rng(0).standard_normal((2, 4, 5))

    def of_both(f):
        return jax.grad(lambda A, Y: jnp.sum(jnp.sin(f(A, Y)) + f(Y, A)), argnums=(0, 1))(A, Y)

    rule = hg.rules.info_nce.with_options(temperature=0.5)
    found, expected = jax.jit(lambda: [of_both(f) for f in (rule, lambda *of: rule.forward(*of)[0])])()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
