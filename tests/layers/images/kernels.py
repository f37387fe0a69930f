"""What tests of layers of images share: parameters, a model's gradients, and what holds for both kinds of kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X = jax.device_put(np.random.default_rng(0).standard_normal((3, 6, 6, 2)))


def drawn(layer):
    """Parameters of the layer, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(layer.init, KEY, X))


def check_model(model, n_out):
    """Weighted gradients, and each example's norms, against jax.grad of the objective."""
    target, weights = np.random.default_rng(2).standard_normal((3, n_out)), jnp.array([0.5, 2.0, -1.0])
    loss = hg.squared_error()

    @jax.jit
    def both(params):
        objective = hg.objective(model, loss)
        by_hand = hg.value_and_grad(model, loss)(params, X, target, weights)
        expected = jax.value_and_grad(objective)(params, X, target, weights)
        _, factors = hg.value_and_factors(model, loss)(params, X, target)
        norms = [factor.sq_norms() for factor in jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)]
        one = lambda x, y: jax.grad(objective)(params, x[None], y[None])  # noqa: E731
        per_example = jax.tree.leaves(jax.vmap(one)(X, target))
        return (by_hand, norms), (expected, [jnp.sum(g.reshape(3, -1) ** 2, 1) for g in per_example])

    assert_same(*both(drawn(model)))


def check_init(layer, shape, dtype):
    """A kernel of this shape, and a bias of 0."""
    params = layer.init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
    assert isinstance(params, layers.ConvolutionParams)
    assert (params.K.shape, params.b.shape) == (shape, (6,))
    assert params.K.dtype == params.b.dtype == dtype
    assert np.asarray(params.K, float).std() > 0
    assert not np.asarray(params.b).any()


def check_lecun_normal(layer, seen):
    """Variance 1 / (taps × features that an output meets), by default."""
    K = np.asarray(layer.init(KEY, jax.ShapeDtypeStruct((1, 9, 9, 40), jnp.float64)).K)
    assert abs(K.std() * np.sqrt(seen) - 1) < 0.03


def check_without_bias(make):
    """No bias, no gradient of one, and no parameters of the other kind."""
    layer = make(3, 2, bias=False)
    params = drawn(layer)
    assert params.b is None
    assert jax.eval_shape(lambda p: layer.backward(*layer.forward(p, X)[::-1])[1].b, params) is None
    with pytest.raises(hg.InputError, match=r"params\.b must be None, got float64 \(3,\)"):
        layer.forward(params._replace(b=jnp.ones(3)), X)
    with pytest.raises(hg.InputError, match=r"params\.b must be an array, got NoneType"):
        make(3, 2).forward(params, X)


def check_refusals(make):
    params = drawn(make(3, 2))
    for call, message in (
        (lambda: make(0, 2), "n_out must be a positive integer, got 0"),
        (lambda: make(3, 2, groups=0), "groups must be a positive integer, got 0"),
        (lambda: make(3, 2, groups=2).init(KEY, X), "groups must divide n_in = 2 and n_out = 3, got 2"),
        (lambda: make(3, (2, 2, 2)).init(KEY, X), "window must be a positive integer, or one for each of 2 axes"),
        (lambda: make(3, 2).init(KEY, X[0, 0]), "x must have shape (batch, *space, n_in), got float64 (6, 2)"),
        (lambda: make(3, 2).init(KEY, [[1.0]]), "x must be an array, got list"),
        (lambda: make(3, 2).forward((), X), "params must be ConvolutionParams, got tuple"),
        (lambda: make(3, 3).forward(params, X), "params.K must have shape (3, 3, "),
        (lambda: make(4, 2).forward(params, X), "params.K must have shape (2, 2, "),
        (lambda: make(3, 2).forward(params, X[..., :1]), "params.K must have shape (2, 2, "),
    ):
        with pytest.raises(hg.InputError, match="^" + re.escape(f"{make.__name__}: {message}")):
            call()
