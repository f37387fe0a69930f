"""Layers on matrices against plain jax.numpy: between other operations under jax.grad, and in a chain."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same

import handgrad as hg

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 3)) + 4 * np.eye(3)
B = RNG.standard_normal((2, 3, 2))


def check_layers(*rows):
    """Rows of (layer, reference, x), all in one program: what custom_vjp makes of each layer."""

    def program(function, x):
        def scalar(x):
            y = function(jax.tree.map(lambda a: a + jnp.sin(a) / 8, x))
            return sum(jnp.sum(jnp.cos(leaf) * leaf) for leaf in jax.tree.leaves(y))

        return jax.value_and_grad(scalar)(x)

    def run(xs):
        found = [
            program(lambda x, f=hg.custom_vjp(layer): f((), x), x) for (layer, *_), x in zip(rows, xs, strict=True)
        ]
        expected = [program(reference, x) for (_, reference, _), x in zip(rows, xs, strict=True)]
        return found, expected

    assert all(layer.init(jax.random.key(0), x) == () for layer, _, x in rows)
    assert_same(*jax.jit(run)([x for *_, x in rows]), 1e-11)


def check_in_a_chain(layer):
    """After a linear layer, whose weights' gradient is a factor."""
    model = hg.chain(hg.linear(3), layer, hg.linear(2))
    near = np.eye(3) + RNG.standard_normal((3, 3)) / 40  # what enters stays positive definite
    params = hg.LinearParams(near, np.zeros(3)), (), hg.LinearParams(RNG.standard_normal((3, 2)), np.ones(2))
    target = RNG.standard_normal((2, 3, 2))

    @jax.jit
    def both(params):
        autodiff = jax.value_and_grad(hg.objective(model, hg.squared_error()))
        return hg.value_and_grad(model, hg.squared_error())(params, X, target), autodiff(params, X, target)

    found, expected = both(params)
    assert np.isfinite(found[0])
    assert_same(found, expected, 1e-11)
