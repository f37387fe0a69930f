"""Clipped sums against vmap(jax.grad), norm by norm and weight by weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from whole_models import CLASSES, LOSS, MODELS, POINTS, drawn, made, rows

import handgrad as hg
from handgrad import layers


def clipped(g, weights):
    return jax.tree.map(lambda a: jnp.tensordot(weights, a, 1), g)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in ("mlp", "repeat", "gpt2")])
def test_no_example_counts_more_than_the_bound(name):
    model, params, x, target = drawn(name)
    _, g = made(name)
    norms = jnp.linalg.norm(rows(g), axis=1)
    bound = float(jnp.median(norms))  # some are clipped and some are not
    function = hg.clipped_grad(model, LOSS, l2_clip_norm=bound, normalize_by=4.0, return_values=True, return_norms=True)
    found, aux = jax.jit(function)(params, x, target)
    weights = jnp.minimum(1, bound / norms)
    assert (weights < 1).any()
    assert (weights == 1).any()
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(clipped(g, weights / 4)), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-11 * max(np.abs(two).max(), 1e-4))
    assert_same(aux, hg.ClippedAux(jax.jit(hg.value_and_factors(model, LOSS))(params, x, target)[0], norms), 1e-11)


MODEL, PARAMS, X, LABELS = drawn("mlp")


def test_layer_by_layer():
    """Each layer's W and b together, to C / √2 of two layers."""
    _, g = made("mlp")
    found, aux = jax.jit(hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, style="layer", return_norms=True))(
        PARAMS, X, LABELS
    )
    layers_of = [jax.tree.leaves(layer) for layer in g if jax.tree.leaves(layer)]
    norms = [jnp.linalg.norm(rows(layer), axis=1) for layer in layers_of]
    expected = [clipped(layer, jnp.minimum(1, 2**-0.5 / n)) for layer, n in zip(layers_of, norms, strict=True)]
    assert len(norms) == 2
    assert_same(jax.tree.leaves(found), jax.tree.leaves(expected), 1e-11)
    assert list(aux.grad_norms) == ["0", "2"]
    assert_same(list(aux.grad_norms.values()), norms, 1e-11)
    assert aux.values is None


def test_another_way_to_clip():
    """Bu et al.'s automatic clipping, C / (‖g‖ + 0.01)."""
    _, g = made("mlp")
    norms = jnp.linalg.norm(rows(g), axis=1)
    function = hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, clip_fn=lambda norms: 1 / (norms + 0.01))
    assert_same(jax.jit(function)(PARAMS, X, LABELS), clipped(g, 1 / (norms + 0.01)), 1e-11)


def test_examples_of_nans_and_padding_are_left_out():
    _, g = made("mlp")
    norms = jnp.linalg.norm(rows(g), axis=1)
    weights = jnp.minimum(1, 1 / norms)
    bad = jnp.arange(5) == 3
    x = jnp.where(bad[:, None], jnp.nan, X)
    expected = clipped(g, jnp.where(bad, 0, weights))
    for options, padding in (({}, None), ({}, bad), ({"nan_safe": False}, bad)):
        function = jax.jit(hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, return_norms=True, **options))
        found, aux = function(PARAMS, x, LABELS, is_padding_example=padding)
        assert_same(found, expected, 1e-11)
        assert np.isnan(aux.grad_norms).tolist() == bad.tolist()
        np.testing.assert_allclose(aux.grad_norms[~bad], norms[~bad], rtol=1e-11)
    found = jax.jit(hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, nan_safe=False))(PARAMS, x, LABELS)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found))


def test_a_gradient_of_zero_is_not_divided_by():
    """Where the loss is flat: the norm is 0, the weight 1."""
    function = hg.clipped_grad(hg.chain(hg.linear(1, bias=False), hg.relu()), hg.squared_error(), l2_clip_norm=1.0)
    params = (hg.LinearParams(jnp.ones((1, 1)), None), ())
    found = function(params, jnp.array([[-1.0], [2.0]]), jnp.zeros((2, 1)))
    np.testing.assert_allclose(found[0].W, [[1.0]], rtol=1e-15)


def test_a_mean_is_rounded_once_it_is_one():
    """Its sum, −96000, is no float16."""
    x, target = jnp.ones((16, 1), jnp.float16), jnp.full((16, 1), 3000.0, jnp.float16)
    params = hg.LinearParams(jnp.zeros((1, 1), jnp.float16), None)
    mean = hg.clipped_grad(hg.linear(1, bias=False), hg.squared_error(), l2_clip_norm=1e9, normalize_by=16.0)
    found = mean(params, x, target).W
    assert found.dtype == jnp.float16
    assert found == -6000


def test_norms_at_the_ends_of_the_range():
    """A gradient of 10¹⁵ is clipped; one of 10³⁰, whose square is no float32, is left out; one of 10⁻³⁰ is whole."""
    x = jnp.asarray([[1e15], [1e30], [1e-30]], jnp.float32)
    params, target = hg.LinearParams(jnp.zeros((1, 1), jnp.float32), None), jnp.full((3, 1), -0.5, jnp.float32)
    function = hg.clipped_grad(hg.linear(1, bias=False), hg.squared_error(), l2_clip_norm=2.0, return_norms=True)
    found, aux = function(params, x, target)
    np.testing.assert_allclose(found.W, [[2.0]], rtol=1e-6)
    np.testing.assert_array_equal(jnp.isinf(aux.grad_norms), [False, True, False])
    alone, _ = function(params, x[2:], target[2:])
    np.testing.assert_allclose(alone.W, [[1e-30]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2_clip_norm": 0.0}, "clipped_grad: l2_clip_norm must be a positive number, got 0.0"),
        ({"l2_clip_norm": -1}, "clipped_grad: l2_clip_norm must be a positive number, got -1"),
        ({"normalize_by": 0}, "clipped_grad: normalize_by must be a positive number, got 0"),
        ({"style": "token"}, "clipped_grad: style must be 'global' or 'layer', got 'token'"),
    ],
)
def test_options(options, message):
    with pytest.raises(hg.InputError) as raised:
        hg.clipped_grad(MODEL, LOSS, **{"l2_clip_norm": 1.0, **options})
    assert str(raised.value) == message


def test_bad_input():
    function = hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0)
    with pytest.raises(hg.InputError, match=r"^clipped_grad: is_padding_example must have .*got bool \(4,\)"):
        function(PARAMS, X, LABELS, is_padding_example=np.zeros(4, bool))
    function = hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, clip_fn=jnp.sum)
    with pytest.raises(hg.InputError, match=r"^clipped_grad: what clip_fn gives must have shape \(5,\)"):
        function(PARAMS, X, LABELS)
    coupled = hg.chain(hg.linear(4), layers.batch_norm(), hg.linear(3))
    params = coupled.init(jax.random.key(0, impl="unsafe_rbg"), POINTS)
    with pytest.raises(hg.InputError, match=r"^batch_norm couples the examples of a batch: "):
        hg.clipped_grad(coupled, LOSS, l2_clip_norm=1.0)(params, POINTS, CLASSES)
    with pytest.raises(hg.InputError, match=r"^clipped_grad: expected a model with parameters, got none"):
        hg.clipped_grad(hg.tanh(), LOSS, l2_clip_norm=1.0)((), POINTS, CLASSES)


def test_a_layer_that_sums_is_named():
    _, x, target = MODELS["mlp"]
    linear = hg.linear(3)
    summing = hg.Layer(linear.init, linear.forward, lambda kept, dy: hg.materialize(linear.backward(kept, dy)))
    model = hg.chain(first=hg.linear(6), second=summing)
    params = model.init(jax.random.key(0, impl="unsafe_rbg"), x)
    message = r"^sq_norms: second\.W must be a factor, got a gradient that is summed already, float64 \(6, 3\)"
    with pytest.raises(hg.InputError, match=message):
        hg.clipped_grad(model, LOSS, l2_clip_norm=1.0)(params, x, target)
