import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_passes, drawn

import handgrad as hg

RNG = np.random.default_rng(0)
X, DY = jax.device_put(RNG.standard_normal((4, 3))), jax.device_put(RNG.standard_normal((4, 3)))


def test_value_and_gradient():
    layer = hg.residual(hg.chain(hg.linear(5), hg.tanh(), hg.linear(3)))

    def reference(params, x):
        (W, b), _, (V, c) = params
        return x + jnp.tanh(x @ W + b[None]) @ V + c[None]

    assert_same(*both_passes(layer, reference)(drawn(layer, X), X, DY))


def test_params_are_the_layers_own():
    key = jax.random.key(0)
    assert_same(hg.residual(hg.linear(3)).init(key, X), hg.linear(3).init(key, X), rtol=0)


def test_the_way_around_a_layer_that_gives_nothing():
    """With W = 0 and b = 0 the layer is the identity, but its weights' gradients are not zero."""
    layer = hg.residual(hg.linear(3))
    y, residuals = layer.forward(hg.LinearParams(jnp.zeros((3, 3)), jnp.zeros(3)), X)
    dx, factors = layer.backward(residuals, DY)
    assert (y == X).all()
    assert (dx == DY).all()
    np.testing.assert_allclose(factors.W.sum(), X.T @ DY, rtol=1e-14)


def test_residual_of_residual():
    layer = hg.residual(hg.residual(hg.identity()))
    y, residuals = layer.forward((), X)
    np.testing.assert_allclose(y, 3 * X, rtol=1e-15)
    np.testing.assert_allclose(layer.backward(residuals, DY)[0], 3 * DY, rtol=1e-15)


@pytest.mark.parametrize(
    ("layer", "x", "got"),
    [
        (hg.linear(4), X, r"float64 \(4, 4\)"),
        (hg.linear(1), X, r"float64 \(4, 1\)"),
        (hg.logsumexp(), X, r"float64 \(4,\)"),
        (hg.linear(3), X.astype(jnp.bfloat16), r"float64 \(4, 3\)"),
    ],
    ids=["wider", "would-broadcast", "rank", "dtype"],
)
def test_an_output_unlike_the_input(layer, x, got):
    params, model = drawn(layer, X), hg.residual(layer)
    sentence = rf"residual: the layer's output must be like its input, {x.dtype} \(4, 3\), got {got}"
    assert_refused({sentence: lambda: model.forward(params, x)})
    assert_refused({sentence: lambda: jax.jit(model.forward)(params, x)})
    assert_refused({f"in layer 1: {sentence}": lambda: hg.chain(hg.identity(), model).forward(((), params), x)})
