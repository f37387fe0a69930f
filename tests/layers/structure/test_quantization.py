"""Quantizers in a network: by hand, by autodiff of the objective, and each example's own gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, drawn

import handgrad as hg
from handgrad import layers

X, TARGET = np.random.default_rng(0).standard_normal((2, 4, 3))
MODEL = hg.chain(
    hg.linear(3),
    layers.lsq_quantize(3),
    hg.linear(2),
    layers.begin_auxiliary(),
    layers.carry_auxiliary(layers.vector_quantize(5)),
    layers.carry_auxiliary(layers.lsq_quantize(4, per_feature=True)),
    layers.carry_auxiliary(hg.linear(3)),
)
LOSS = layers.add_auxiliary(hg.squared_error(), 0.5)


def test_a_network():
    """The forward passes are their surrogates', so that autodiff of the objective gives the estimate too."""
    params = jax.tree.map(jnp.abs, drawn(MODEL, X))  # steps are positive

    @jax.jit
    def every_way(params):
        by_hand = hg.value_and_grad(MODEL, LOSS)(params, X, TARGET)
        autodiff = jax.value_and_grad(hg.objective(MODEL, LOSS))(params, X, TARGET)
        _, factors = hg.value_and_factors(MODEL, LOSS)(params, X, TARGET)
        each = [jax.grad(hg.objective(MODEL, LOSS))(params, X[b : b + 1], TARGET[b : b + 1]) for b in range(4)]
        return (by_hand, hg.per_example_grads(factors)), (autodiff, jax.tree.map(lambda *g: jnp.stack(g), *each))

    assert_same(*every_way(params), 1e-11)


def test_parameters_to_begin_with():
    like = jax.ShapeDtypeStruct((4, 3), np.float32)
    key = jax.random.key(0)
    (codebook,) = layers.vector_quantize(5).init(key, like)
    assert (codebook.shape, codebook.dtype) == ((5, 3), np.float32)
    assert np.abs(codebook).max() <= 1 / 5
    assert layers.lsq_quantize(step=0.25).init(key, like).s == 0.25
    assert layers.lsq_quantize(per_feature=True).init(key, like).s.shape == (3,)
