"""What tests of layers of sequences share: inputs, and gradients against autodiff."""

import functools

import jax
import numpy as np
from helpers import assert_same, drawn

import handgrad as hg
from handgrad.layers import Sequences

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X = jax.device_put(RNG.standard_normal((3, 4, 2)))
LENGTHS = np.array([4, 1, 3])
STATE = jax.device_put(RNG.standard_normal((3, 5)))


def state_of(kind, scale=1.0):
    return (scale * STATE, -scale * STATE) if kind == "lstm" else scale * STATE


def assert_gradients(*rows):
    """value_and_grad's gradient of params and of x is jax.grad's of the objective, for each (model, x, target)."""
    loss = hg.squared_error()
    every = [getattr(x, "lengths", None) for _, x, _ in rows]

    def without_lengths(x):
        return x._replace(lengths=None) if isinstance(x, Sequences) else x

    @jax.jit
    def both(given):
        found, expected = [], []
        for (model, _, target), lengths, (params, x) in zip(rows, every, given, strict=True):
            # Lengths are no argument to differentiate.
            def of(make, params, x, lengths=lengths, target=target):
                return make(params, x._replace(lengths=lengths) if isinstance(x, Sequences) else x, target)

            found.append(of(hg.value_and_grad(model, loss, argnums=(0, 1)), params, x))
            objective = functools.partial(of, hg.objective(model, loss))
            expected.append(jax.value_and_grad(objective, argnums=(0, 1))(params, x))
        return found, expected

    assert_same(*both([(drawn(model, x), without_lengths(x)) for model, x, _ in rows]))
