"""convolution, transposed_convolution, the pools and flatten as layers: parameters, and a chain of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 6, 6, 2)))


def drawn(layer):
    """Parameters of the layer, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(layer.init, KEY, X))


def test_init():
    for make, shape, dtype in (
        (layers.convolution(6, 3, groups=2), (3, 3, 1, 6), "bfloat16"),
        (layers.convolution(6, (3, 1)), (3, 1, 2, 6), "float64"),
        (layers.transposed_convolution(6, 3, groups=2), (3, 3, 3, 2), "bfloat16"),
    ):
        params = make.init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
        assert isinstance(params, layers.ConvolutionParams)
        assert (params.K.shape, params.b.shape) == (shape, (6,))
        assert params.K.dtype == params.b.dtype == dtype
        assert np.asarray(params.K, float).std() > 0
        assert not np.asarray(params.b).any()


def test_the_default_initializer_is_lecun_normal():
    """Variance 1 / (taps × features that an output meets)."""
    x = jax.ShapeDtypeStruct((1, 9, 9, 40), jnp.float64)
    for layer, seen in (
        (layers.convolution(60, 3), 9 * 40),
        (layers.convolution(60, 3, groups=4), 9 * 10),
        (layers.transposed_convolution(60, 3), 9 * 40),
    ):
        K = np.asarray(layer.init(KEY, x).K)
        assert abs(K.std() * np.sqrt(seen) - 1) < 0.03


@pytest.mark.parametrize("make", [layers.convolution, layers.transposed_convolution])
def test_without_bias(make):
    layer = make(3, 2, bias=False)
    params = drawn(layer)

    def look(params):
        y, residuals = layer.forward(params, X)
        assert params.b is None
        assert layer.backward(residuals, y)[1].b is None

    jax.eval_shape(look, params)
    with pytest.raises(hg.InputError, match=r"params\.b must be None, got float64 \(3,\)"):
        layer.forward(params._replace(b=jnp.ones(3)), X)
    with pytest.raises(hg.InputError, match=r"params\.b must be an array, got NoneType"):
        make(3, 2).forward(params, X)


def test_the_residuals_are_references():
    layer = layers.convolution(3, 2)
    params = drawn(layer)
    kept = jax.tree.leaves(layer.forward(params, X)[1])
    assert {id(array) for array in kept} == {id(X), id(params.K), id(params.b)}


CHAINS = {
    "down": (
        hg.chain(
            layers.convolution(4, 3, strides=2),
            hg.tanh(),
            layers.max_pool(2, strides=1, residuals="recompute"),
            layers.convolution(4, 2, groups=4, dilation=2, padding=((1, 1), (1, 2))),
            layers.average_pool(2),
            layers.flatten(),
            hg.linear(3),
        ),
        (3, 3),
    ),
    "up": (
        hg.chain(layers.transposed_convolution(2, 3, strides=2), hg.tanh(), layers.global_max_pool(), hg.linear(2)),
        (3, 2),
    ),
    "repeat": (
        hg.chain(
            hg.repeat(hg.residual(hg.chain(layers.convolution(2, 3), hg.tanh())), 2), layers.global_average_pool()
        ),
        (3, 2),
    ),
    "shortcut": (
        hg.chain(
            a=hg.residual(
                hg.chain(layers.convolution(4, 3, strides=2), hg.tanh()), layers.convolution(4, 1, strides=2)
            ),
            b=layers.global_average_pool(),
        ),
        (3, 4),
    ),
}


@pytest.mark.parametrize(("model", "shape"), CHAINS.values(), ids=CHAINS)
def test_a_chain(model, shape):
    """Weighted gradients, and each example's norms, against jax.grad of the objective."""
    target = np.random.default_rng(2).standard_normal(shape)
    weights = jnp.array([0.5, 2.0, -1.0])
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
        return by_hand, expected, norms, [jnp.sum(g.reshape(3, -1) ** 2, 1) for g in per_example]

    by_hand, expected, norms, expected_norms = both(drawn(model))
    assert_same(by_hand, expected)
    assert_same(norms, expected_norms)


@pytest.mark.parametrize("name", ["convolution", "transposed_convolution"])
def test_bad_input(name):
    make = getattr(layers, name)
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
        with pytest.raises(hg.InputError, match="^" + re.escape(f"{name}: {message}")):
            call()


def test_a_shortcut_of_another_shape():
    layer = hg.residual(layers.convolution(4, 3, strides=2), layers.convolution(4, 1))
    params = drawn(layer)
    pattern = (
        r"^residual: the layer's output must be like the shortcut's output, float64 \(3, 6, 6, 4\), got float64 \(3, 3,"
    )
    with pytest.raises(hg.InputError, match=pattern):
        layer.forward(params, X)
    with pytest.raises(
        hg.InputError, match="residual: params must be a dict of 'inside', 'shortcut', one for each layer, got a tuple"
    ):
        layer.forward((), X)


def test_the_checker_looks_inside_a_shortcut():
    """Whichever of the two is wrong is named."""
    right = layers.convolution(4, 1, strides=2)
    wrong = hg.Layer(right.init, right.forward, lambda kept, dy: right.backward(kept, 2 * dy))
    model = hg.chain(a=hg.residual(right, wrong))
    report = hg.check_layer(model, X, params=drawn(model))
    assert report.verdict == "FAIL"
    assert "shortcut" in str(report)
