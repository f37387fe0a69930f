"""weight_norm around a linear and a convolution, in a stack, and with a weight that is merged again."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, drawn
from layers.images.kernels import check_model

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X = np.random.default_rng(0).standard_normal((4, 3, 5))


def test_a_network():
    """Weighted gradients and each example's norms, of every parameter, against autodiff."""
    check_model(
        hg.chain(
            hg.weight_norm(hg.convolution(4, 3, strides=2, groups=2)),
            hg.tanh(),
            hg.flatten(),
            hg.weight_norm(hg.linear(3)),
            hg.repeat(hg.chain(hg.weight_norm(hg.linear(3, bias=False)), hg.tanh()), 2),
        ),
        n_out=3,
    )


def test_folds():
    """Weighted sums, second moments and products of two examples, each from per-example gradients."""
    layer = hg.weight_norm(hg.linear(2))
    params, dy, weights = (
        drawn(layer, X),
        np.random.default_rng(1).standard_normal((4, 3, 2)),
        np.array([1.0, 0, -2, 3]),
    )

    @jax.jit
    def run(params):
        _, factors = layer.backward(layer.forward(params, X)[1], dy)
        found, expected = [], []
        for factor in (factors.g, factors.inside.W):
            g = factor.per_example()
            flat = g.reshape(4, -1)
            found.append(
                (factor.sum(weights), factor.second_moment(), factor.gram(), factor.pick(lambda a: a[1:3]).sum())
            )
            expected.append((jnp.tensordot(weights, g, 1), jnp.sum(g**2, 0), flat @ flat.T, g[1] + g[2]))
        return found, expected

    assert_same(*run(params))


def test_what_is_added_and_merged():
    @jax.jit
    def run(x):
        linear = hg.linear(2)
        params = linear.init(KEY, x)
        added = layers.add_weight_norm(params)
        y = hg.weight_norm(linear).forward(added, x)[0], layers.merge_weight_norm(added)
        return y, (linear.forward(params, x)[0], params), hg.weight_norm(linear).init(KEY, x), added

    found, expected, *both = run(X)
    assert_same(found, expected)
    assert_same(*both)


def test_refusals():
    layer = hg.weight_norm(hg.linear(2))
    weight = "expected params with a weight, W or K, as linear's, got"
    assert_refused(
        {
            "weight_norm: expected a Layer, .*": lambda: hg.weight_norm(hg.linear),
            f"add_weight_norm: {weight} tuple": lambda: hg.weight_norm(hg.relu()).init(KEY, X),
            "weight_norm: params must be WeightNormParams, got LinearParams": lambda: layer.forward(
                hg.LinearParams(np.ones((5, 2))), X
            ),
        }
    )
