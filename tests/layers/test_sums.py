"""A backward pass that is told to sum: what comes out of loops, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn, noise

import handgrad as hg
from handgrad.backprop import value_and_parts
from handgrad.layers import batch_norm, reversible, reversible_sequence
from handgrad.layers.sums import sums_only

KEY, LOSS = jax.random.key(0), hg.l2_loss()
X = np.random.default_rng(0).standard_normal((4, 6))
BLOCK = hg.residual(hg.chain(hg.linear(6), hg.tanh()))
HALF = hg.repeat(hg.chain(hg.linear(3), hg.relu()), 2)
LAYERS = {
    "repeat": hg.repeat(BLOCK, 3),
    "of repeats": hg.chain(hg.repeat(hg.repeat(BLOCK, 2), 3)),
    "recomputed": hg.repeat(hg.recomputed(hg.repeat(BLOCK, 2)), 3, residuals="recompute"),
    "with noise": hg.repeat(hg.chain(BLOCK, noise()), 3, residuals="recompute"),
    "coupled": hg.repeat(hg.chain(hg.linear(6, bias=False), batch_norm()), 3),
    "tied inside": hg.repeat(hg.shared(hg.chain(hg.linear(6), hg.tanh(), hg.linear(6)), {"2": "0"}), 3),
    "tied": hg.shared(hg.chain(hg.repeat(BLOCK, 3), hg.repeat(BLOCK, 3)), {"1": "0"}),
    "reversible": reversible(HALF, HALF),
    "reversible_sequence": reversible_sequence(HALF, HALF, 3, gradients="factors"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_is_summed_in_loops(name):
    """No factor leaves them; `value_and_factors` has factors of the same layer all the same."""
    layer = LAYERS[name]

    def both(params, x):
        _, residuals = layer.forward(params, x, KEY)
        return layer.backward(sums_only(residuals), x)[1], layer.backward(residuals, x)[1]

    params = jax.eval_shape(layer.init, KEY, X)
    sums, factors = jax.eval_shape(both, params, X)
    assert jax.tree.map(jnp.shape, sums) == jax.tree.map(jnp.shape, params)
    assert not any(map(hg.factors.is_factor, jax.tree.leaves(sums, is_leaf=hg.factors.is_factor)))
    assert all(map(hg.factors.is_factor, jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)))


def test_the_sums_are_those_of_the_factors():
    """To the last bit where a sum of float32 is rounded to bfloat16; what else loops sum is in their own tests. And so
    are those of an update, whose loops sum where that is smaller, and write over what they have read."""
    dtypes = {"recomputed": "float64", "with noise": "float64", "coupled": "float64", "tied": "float64"}
    dtypes["tied inside"] = "bfloat16"
    arguments = {name: (drawn(LAYERS[name], X.astype(d), 0.5), X.astype(d), X.astype(d)) for name, d in dtypes.items()}

    @jax.jit
    def both(arguments):
        found, expected = {}, {}
        for name, of_one in arguments.items():
            parts = value_and_parts("update", LAYERS[name], LOSS, 1.0)(*of_one, None, KEY)[1]
            found[name] = hg.grad(LAYERS[name], LOSS)(*of_one, None, KEY), hg.materialize(parts)
            factors = hg.value_and_factors(LAYERS[name], LOSS)(*of_one, KEY)[1]
            expected[name] = (jax.tree.map(lambda p: p / 4, hg.materialize(factors)),) * 2
        return found, expected

    found, expected = both(arguments)
    assert_same(found.pop("tied inside"), expected.pop("tied inside"), rtol=0)
    assert_same(found, expected)


def test_no_compiled_function_confuses_the_ways():
    """A layer that compiles its own backward pass: what residuals say is a part of their structure."""
    inside = hg.repeat(BLOCK, 3)
    layer = hg.Layer(inside.init, inside.forward, jax.jit(inside.backward))
    params = jax.eval_shape(layer.init, KEY, X)
    for _ in range(2):
        grads = jax.eval_shape(hg.grad(layer, LOSS), params, X, X)
        _, factors = jax.eval_shape(hg.value_and_factors(layer, LOSS), params, X, X)
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        assert isinstance(factors[0].W, hg.factors.Stacked)


def test_who_takes_gradients_alone():
    """The program of each of them has the factors' sides of one layer in its loops, and none of three."""
    layer, params = LAYERS["repeat"], jax.eval_shape(LAYERS["repeat"].init, KEY, X)
    ways = {
        "value_and_grad": hg.value_and_grad(layer, LOSS),
        "custom_vjp": jax.grad(lambda params, x, y: jnp.sum(hg.custom_vjp(layer)(params, x) * y)),
        "ggn": lambda params, x, y: hg.ggn_vector_product(layer, LOSS, params, x, y)(params),
    }
    for way in ways.values():
        equations = jax.make_jaxpr(way)(params, X, X).jaxpr.eqns
        *_, backward = (equation for equation in equations if equation.primitive.name == "scan")
        assert {v.aval.shape for v in backward.outvars} == {X.shape, (3, 6, 6), (3, 6)}
