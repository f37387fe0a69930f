import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((4, 3))), jnp.asarray(RNG.standard_normal((4, 3)))
KEY = jax.random.key(0)


def test_value_and_gradient():
    layer = hg.residual(hg.chain(hg.linear(5), hg.tanh(), hg.linear(3)))
    params = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), jax.eval_shape(layer.init, KEY, X))

    def reference(params, x):
        (W, b), _, (V, c) = params
        return x + jnp.tanh(x @ W + b[None]) @ V + c[None]

    @jax.jit
    def both(params, x):
        y, residuals = layer.forward(params, x)
        dx, factors = layer.backward(residuals, DY)
        expected, vjp = jax.vjp(reference, params, x)
        return (y, (hg.materialize(factors), dx)), (expected, vjp(DY))

    found, expected = both(params, X)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14)


def test_params_are_the_layers_own():
    inner = hg.linear(3)
    for one, two in zip(hg.residual(inner).init(KEY, X), inner.init(KEY, X), strict=True):
        assert (one == two).all()


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
    params = layer.init(KEY, X)
    pattern = rf"residual: the layer's output must be like its input, {x.dtype} \(4, 3\), got {got}(\n|$)"
    for forward in (hg.residual(layer).forward, jax.jit(hg.residual(layer).forward)):
        with pytest.raises(hg.InputError, match="^" + pattern):
            forward(params, x)
    with pytest.raises(hg.InputError, match="^in layer 1: " + pattern):
        hg.chain(hg.identity(), hg.residual(layer)).forward(((), params), x)
