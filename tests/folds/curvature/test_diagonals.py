"""Diagonals, against the gradients of each example and the matrices of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from jax.flatten_util import ravel_pytree

import handgrad as hg
from handgrad.folds.curvature import empirical_fisher_diagonal, ggn_diagonal

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH = 3


def normal(*shape):
    return RNG.standard_normal(shape)


IDS = RNG.integers(0, 4, (BATCH, 2))
MODELS = {
    "mlp": (
        hg.chain(hg.linear(4), hg.tanh(), hg.repeat(hg.residual(hg.linear(4)), 2), hg.linear(3)),
        hg.softmax_cross_entropy(0.1),
        normal(BATCH, 3),
        RNG.integers(0, 3, BATCH),
    ),
    "attention, tied": (
        hg.tied_embedding(4, 4, hg.chain(hg.residual(hg.multi_head_attention(2, causal=True)), hg.layer_norm())),
        hg.softmax_cross_entropy(),
        IDS,
        IDS[:, ::-1],
    ),
    "convolutions": (
        hg.chain(hg.layers.convolution(4, 2, groups=2), hg.gelu(), hg.layers.global_average_pool(), hg.linear(2)),
        hg.squared_error(),
        normal(BATCH, 3, 3, 2),
        normal(BATCH, 2),
    ),
}


def flattened(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", MODELS)
def test_against_autodiff(name):
    model, loss, x, target = MODELS[name]
    params = jax.tree.map(lambda p: normal(*p.shape) / 2, jax.eval_shape(model.init, KEY, x))

    @jax.jit
    def both(params):
        flat, unravel = ravel_pytree(params)

        def of_one(params, x, y):
            return loss.forward(model.forward(params, x[None])[0], y[None])[0][0]

        each = jax.vmap(jax.grad(of_one), (None, 0, 0))(params, x, target)
        prediction = model.forward(params, x)[0]
        J = jax.jacrev(lambda p: model.forward(unravel(p), x)[0].reshape(-1))(flat)
        cost = jax.hessian(lambda z: loss.forward(z.reshape(prediction.shape), target)[0].mean())
        ggn = unravel(jnp.einsum("ai,ab,bi->i", J, cost(prediction.reshape(-1)), J))
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        found = empirical_fisher_diagonal(factors), ggn_diagonal(model, loss, params, x, target)
        return found, (jax.tree.map(lambda g: jnp.mean(g**2, axis=0), each), ggn)

    for found, expected in zip(*both(params), strict=True):  # as one vector: a bias of keys has a diagonal of 0
        assert_same(flattened(found), flattened(expected), rtol=1e-11)


def test_a_gradient_summed_already():
    message = r"1.b must be a factor, got a gradient that is summed already, float64 \(3,\)"
    with pytest.raises(hg.InputError, match=f"^empirical_fisher_diagonal: {message}"):
        empirical_fisher_diagonal(
            (hg.factors.Total(normal(2, 3)), hg.LinearParams(hg.factors.Total(normal(2, 3)), jnp.ones(3)))
        )
    summed = hg.Layer(lambda key, x: None, lambda p, x, key=None: (x * 1, x), lambda x, dy: (dy, jnp.sum(dy * x)))
    message = r"^ggn_diagonal: the leaf must be a factor, got a gradient that is summed already, float64 \(\)"
    with pytest.raises(hg.InputError, match=message):
        jax.eval_shape(lambda p, x: ggn_diagonal(summed, hg.l2_loss(), p, x, x), np.ones(()), normal(2, 3))
