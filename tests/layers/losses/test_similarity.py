"""Similarity losses: each reaches its rule, with its options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from losses import assert_losses

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
A, Y = RNG.standard_normal((2, *SHAPE))
QUERIES, KEYS = RNG.standard_normal((2, 4, 5))


def length(a):
    return jnp.sqrt((a * a).sum(-1))


def test_losses():
    assert_losses(
        (layers.cosine_distance(), lambda a, y: 1 - (a * y).sum(-1) / (length(a) * length(y)), A, Y),
    )


def test_info_nce_in_a_network():
    """The queries go through a layer and the keys get no gradient; then both do, calling the rule."""
    model, loss = hg.linear(5), layers.info_nce(0.5)

    def of_both(f):
        return jax.grad(lambda A, Y: jnp.sum(jnp.sin(f(A, Y)) + f(Y, A)), argnums=(0, 1))(QUERIES, KEYS)

    @jax.jit
    def run(params):
        by_hand = (
            hg.value_and_grad(model, loss)(params, QUERIES, KEYS),
            of_both(functools.partial(rules.info_nce, temperature=0.5)),
        )
        plain = of_both(lambda A, Y: rules.info_nce_forward(A, Y, temperature=0.5)[0])
        return by_hand, (jax.value_and_grad(hg.objective(model, loss))(params, QUERIES, KEYS), plain)

    found, expected = run(hg.LinearParams(RNG.standard_normal((5, 5)), RNG.standard_normal(5)))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
