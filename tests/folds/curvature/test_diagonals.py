"""Diagonals, against the gradients of each example and the matrices of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folds.curvature.test_products import BATCH, IMAGES, MODELS, ggn_of, normal
from helpers import assert_refused, assert_same
from jax.flatten_util import ravel_pytree
from whole_models import normal_params

import handgrad as hg
from handgrad.factors import Total
from handgrad.folds.curvature import empirical_fisher_diagonal, ggn_diagonal

MODELS = MODELS | {
    "convolutions": (
        hg.chain(hg.layers.convolution(4, 2, groups=2), hg.gelu(), hg.layers.global_average_pool(), hg.linear(2)),
        hg.squared_error(),
        IMAGES,
        normal(BATCH, 2),
    )
}


@pytest.mark.parametrize("name", MODELS)
def test_against_autodiff(name):
    model, loss, x, target = MODELS[name]

    @jax.jit
    def both(params):
        alone = jax.grad(hg.objective(model, loss))
        each = jax.vmap(lambda x, y: alone(params, x[None], y[None]))(x, target)
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        found = empirical_fisher_diagonal(factors), ggn_diagonal(model, loss, params, x, target)
        fisher = jax.tree.map(lambda g: jnp.mean(g**2, axis=0), each)
        # As one vector: a bias of keys has a diagonal of 0.
        return [ravel_pytree(one)[0] for one in found], [
            ravel_pytree(fisher)[0],
            jnp.diag(ggn_of(model, loss, params, x, target)),
        ]

    assert_same(*both(normal_params(model, x)), rtol=1e-11)


def test_a_gradient_summed_already():
    must = "must be a factor, got a gradient that is summed already, float64"
    one = Total(np.ones((2, 3)))
    summed = hg.Layer(lambda key, x: None, lambda p, x, key=None: (x * 1, x), lambda x, dy: (dy, jnp.sum(dy * x)))
    diagonal = lambda p, x: ggn_diagonal(summed, hg.l2_loss(), p, x, x)  # noqa: E731
    assert_refused(
        {
            rf"empirical_fisher_diagonal: 1.b {must} \(3,\)": lambda: empirical_fisher_diagonal(
                (one, hg.LinearParams(one, jnp.ones(3)))
            ),
            rf"ggn_diagonal: the leaf {must} \(\)": lambda: jax.eval_shape(diagonal, np.ones(()), np.ones((2, 3))),
        }
    )
