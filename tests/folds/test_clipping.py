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


def balanced(counts):
    experts = layers.mixture_of_experts(hg.linear(4), 3, k=1, softmax_over="all", balance=True, counts=counts)
    model = hg.chain(hg.linear(4), layers.begin_auxiliary(), layers.carry_auxiliary(experts, skip=True))
    return model, layers.add_auxiliary(LOSS, 5.0)


@pytest.mark.parametrize("style", ["global", "layer"])
def test_one_example_less_moves_the_sum_by_no_more_than_the_bound(style):
    """Also under a loss of the experts' load, where it is counted in each example."""
    model, loss = balanced("example")
    params = model.init(jax.random.key(2, impl="unsafe_rbg"), POINTS)
    function = jax.jit(hg.clipped_grad(model, loss, l2_clip_norm=0.5, style=style))
    whole = function(params, POINTS, CLASSES)
    for b in range(5):
        without = function(params, np.delete(POINTS, b, 0), np.delete(CLASSES, b))
        moved = np.sqrt(
            sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (whole, without)), strict=True))
        )
        assert 0 < moved <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("model", "loss", "by"),
    [
        (*balanced("batch"), r"in layer 2.inside: mixture_of_experts with counts=\"batch\" couples the examples"),
        (hg.chain(hg.linear(4), hg.linear(6)), layers.info_nce(), "info_nce couples the examples"),
        (hg.chain(layers.batch_norm(scale=False, shift=False), hg.linear(6)), LOSS, "in layer 0: batch_norm couples"),
    ],
)
def test_no_bound_where_examples_meet(model, loss, by):
    """Layers behind the coupling are refused too: what they see changes with every example."""
    params = model.init(jax.random.key(2, impl="unsafe_rbg"), POINTS)
    target = POINTS if by.startswith("info_nce") else CLASSES
    for padding in (None, jnp.arange(5) == 1):
        with pytest.raises(hg.InputError, match=f"^clipped_grad: no example may enter another's gradient, but {by}"):
            hg.clipped_grad(model, loss, l2_clip_norm=1.0)(params, POINTS, target, is_padding_example=padding)


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


def gain():
    """A layer whose parameters are one array, in no NamedTuple."""
    return hg.Layer(
        lambda key, x: jnp.full(x.shape[-1:], 1.3),
        lambda p, x, key=None: (x * p[None], (x, p)),
        lambda kept, dy: (dy * kept[1][None], hg.Hadamard(kept[0], dy)),
    )


def test_a_stack_is_as_many_layers():
    """Written with repeat, nested too, or one after the other: the same layers, each clipped by itself."""
    block, half = hg.residual(hg.chain(hg.linear(4), hg.tanh())), hg.linear(2)
    inner = hg.chain(block, hg.repeat(gain(), 2))
    short = hg.chain(hg.repeat(inner, 3), layers.reversible_sequence(half, half, 2, gradients="factors"), hg.linear(3))
    long = hg.chain(
        *[hg.chain(block, hg.chain(gain(), gain()))] * 3, *[layers.reversible(half, half)] * 2, hg.linear(3)
    )
    x = POINTS[:, :4]
    params = short.init(jax.random.key(1, impl="unsafe_rbg"), x)

    def apart(tree):
        """The same, layer by layer."""
        blocks = [jax.tree.map(lambda a, i=i: a[i], tree[0]) for i in range(3)]
        pairs = [jax.tree.map(lambda a, i=i: a[i], tree[1]) for i in range(2)]
        return *((linear, tuple(gains)) for linear, gains in blocks), *pairs, tree[2]

    def clip(model):
        return hg.clipped_grad(model, LOSS, l2_clip_norm=1.0, style="layer", return_norms=True)

    (one, aux), (two, aux_too) = jax.jit(lambda p: (clip(short)(p, x, CLASSES), clip(long)(apart(p), x, CLASSES)))(
        params
    )
    assert_same(apart(one), two, 1e-12)
    norms, norms_too = aux.grad_norms, aux_too.grad_norms
    assert {name: norm.shape for name, norm in norms.items()} == {
        "0.0.0": (3, 5),
        "0.1": (3, 2, 5),
        "1.f": (2, 5),
        "1.g": (2, 5),
        "2": (5,),
    }
    assert len(norms_too) == 14
    assert_same(norms["0.1"][2, 1], norms_too["2.1.1"], 1e-12)
    assert (norms["0.1"] > 14**-0.5).any()


def test_names_with_dots_are_not_nesting():
    linear = hg.linear(6, bias=False)
    dotted, plain = hg.chain(**{"a.b": linear, "a": hg.chain(b=linear)}), hg.chain(c=linear, a=hg.chain(b=linear))
    params = plain.init(jax.random.key(1, impl="unsafe_rbg"), POINTS)
    found, aux = clipped_by_layer(dotted, {"a.b": params["c"], "a": params["a"]})
    expected, aux_too = clipped_by_layer(plain, params)
    assert_same((found["a.b"], found["a"]), (expected["c"], expected["a"]), 1e-12)
    assert_same(aux.grad_norms, {"'a.b'": aux_too.grad_norms["c"], "a.b": aux_too.grad_norms["a.b"]}, 1e-12)


def clipped_by_layer(model, params):
    function = hg.clipped_grad(model, LOSS, l2_clip_norm=0.1, style="layer", return_norms=True)
    return jax.jit(function)(params, POINTS, CLASSES)


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
        if padding is None:
            assert np.isnan(aux.grad_norms).tolist() == bad.tolist()
        else:
            assert aux.grad_norms[bad] == 0
        np.testing.assert_allclose(aux.grad_norms[~bad], norms[~bad], rtol=1e-11)
    found = jax.jit(hg.clipped_grad(MODEL, LOSS, l2_clip_norm=1.0, nan_safe=False))(PARAMS, x, LABELS)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found))


def test_padding_enters_nothing():
    """Neither what clip_fn sees nor what is said of the examples: as if it were not there."""

    def to_the_mean(norms):
        return jnp.where(norms > 0, jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1) / norms, 7.0)

    for style in ("global", "layer"):
        function = jax.jit(
            hg.clipped_grad(
                MODEL, LOSS, l2_clip_norm=1.0, style=style, clip_fn=to_the_mean, return_values=True, return_norms=True
            )
        )
        expected, aux_alone = function(PARAMS, X[1:], LABELS[1:])
        padding = np.arange(5) == 0
        for held in (X[0], jnp.nan):
            found, aux = function(PARAMS, X.at[0].set(held), LABELS, is_padding_example=padding)
            assert_same(found, expected, 1e-11)
            assert_same(jax.tree.map(lambda a: a[1:], aux), aux_alone, 1e-11)
            assert all(leaf[0] == 0 for leaf in jax.tree.leaves(aux))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in ("lstm", "gpt2")])
def test_a_padding_example_of_nonsense(name):
    """Ids that are none, and parameters that see them in other ways than a matrix product."""
    model, params, x, target = drawn(name)
    function = jax.jit(hg.clipped_grad(model, LOSS, l2_clip_norm=1.0, nan_safe=False))
    padding = jnp.arange(4) == 1
    expected = function(params, x, target, is_padding_example=padding)
    nonsense = jnp.where(padding[:, None], -(2**31), x), jnp.where(padding[:, None], 2**31 - 1, target)
    assert_same(function(params, *nonsense, is_padding_example=padding), expected, 1e-12)


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
