"""Clipped sums against vmap(jax.grad), norm by norm and weight by weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same
from whole_models import CLASSES, LOSS, POINTS, drawn, made, normal_params, rows

import handgrad as hg
from handgrad import layers


def clipped(g, weights):
    return jax.tree.map(lambda a: np.tensordot(weights, a, 1), g)


def norms_of(g):
    return np.linalg.norm(rows(g), axis=1)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in ("mlp", "repeat", "gpt2")])
def test_no_example_counts_more_than_the_bound(name):
    model, params, x, target = drawn(name)
    _, g, losses = made(name)
    norms = norms_of(g)
    bound = float(np.median(norms))  # some are clipped and some are not
    function = hg.clipped_grad(model, LOSS, l2_clip_norm=bound, normalize_by=4.0, return_values=True, return_norms=True)
    found, aux = jax.jit(function)(params, x, target)
    weights = np.minimum(1, bound / norms)
    assert (weights < 1).any()
    assert (weights == 1).any()
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(clipped(g, weights / 4)), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-11 * max(np.abs(two).max(), 1e-4))
    assert_same(aux, hg.folds.ClippedAux(losses, norms), 1e-11)


def balanced(counts):
    experts = layers.mixture_of_experts(hg.linear(4), 3, k=1, softmax_over="all", balance=True, counts=counts)
    model = hg.chain(hg.linear(4), layers.begin_auxiliary(), layers.carry_auxiliary(experts, skip=True))
    return model, layers.add_auxiliary(LOSS, 5.0)


def test_one_example_less_moves_the_sum_by_no_more_than_the_bound():
    """Also under a loss of the experts' load, where it is counted in each example."""
    model, loss = balanced("example")
    params = normal_params(model, POINTS)
    functions = [hg.clipped_grad(model, loss, l2_clip_norm=0.5, style=style) for style in ("global", "layer")]

    def sums(x, classes):
        return [rows(jax.tree.map(lambda a: a[None], f(params, x, classes)))[0] for f in functions]

    without = [(np.delete(POINTS, b, 0), np.delete(CLASSES, b)) for b in range(5)]
    whole, parts = jax.jit(lambda *others: (sums(POINTS, CLASSES), jax.vmap(sums)(*others)))(
        *map(np.stack, zip(*without, strict=True))
    )
    for one, others in zip(whole, parts, strict=True):
        moved = np.linalg.norm(np.asarray(one) - np.asarray(others), axis=1)
        assert ((moved > 0) & (moved <= 0.5 + 1e-9)).all()


@pytest.mark.parametrize(
    ("model", "loss", "by"),
    [
        (*balanced("batch"), r"in layer 2.inside: mixture_of_experts with counts=\"batch\" couples the examples"),
        (hg.chain(hg.linear(4), hg.linear(6)), layers.info_nce(), "info_nce couples the examples"),
        (hg.chain(layers.batch_norm(scale=False, shift=False), hg.linear(6)), LOSS, "in layer 0: batch_norm couples"),
    ],
)
def test_no_bound_where_examples_interact(model, loss, by):
    """Layers behind the coupling are refused too: their input changes with every example."""
    target = POINTS if by.startswith("info_nce") else CLASSES
    said = f"clipped_grad: no example may enter another's gradient, but {by}.*"
    for padding in (None, np.arange(5) == 1):
        assert_refused({said: lambda padding=padding: shapes(model, loss, POINTS, target, padding)})


def shapes(model, loss, x, target, padding=None, **options):
    """What `clipped_grad` gives, or refuses, from shapes alone."""
    function = hg.clipped_grad(model, loss, **{"l2_clip_norm": 1.0, **options})
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.eval_shape(lambda *given: function(*given, is_padding_example=padding), params, x, target)


MODEL, PARAMS, X, LABELS = drawn("mlp")


def of_mlp(x=X, target=LABELS, padding=None, **options):
    function = hg.clipped_grad(MODEL, LOSS, **{"l2_clip_norm": 1.0, **options})
    return function(PARAMS, x, target, is_padding_example=padding)


def test_layer_by_layer_and_with_another_clip_fn():
    """Each layer's W and b together, to C / √2 of two layers; Bu et al.'s automatic clipping, C / (‖g‖ + 0.01)."""
    _, g, _ = made("mlp")
    by_layer = {"style": "layer", "return_norms": True}
    (found, aux), automatic = jax.jit(lambda x: (of_mlp(x, **by_layer), of_mlp(x, clip_fn=lambda n: 1 / (n + 0.01))))(X)
    assert_same(automatic, clipped(g, 1 / (norms_of(g) + 0.01)), 1e-11)
    layers_of = [jax.tree.leaves(layer) for layer in g if jax.tree.leaves(layer)]
    norms = [norms_of(layer) for layer in layers_of]
    expected = [clipped(layer, np.minimum(1, 2**-0.5 / n)) for layer, n in zip(layers_of, norms, strict=True)]
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
        lambda kept, dy: (dy * kept[1][None], hg.factors.Hadamard(kept[0], dy)),
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

    def apart(tree):
        """The same, layer by layer."""
        blocks = [jax.tree.map(lambda a, i=i: a[i], tree[0]) for i in range(3)]
        pairs = [jax.tree.map(lambda a, i=i: a[i], tree[1]) for i in range(2)]
        return *((linear, tuple(gains)) for linear, gains in blocks), *pairs, tree[2]

    @jax.jit
    def both(params):
        options = {"l2_clip_norm": 1.0, "style": "layer", "return_norms": True}
        of_both = (short, params), (long, apart(params))
        return [hg.clipped_grad(model, LOSS, **options)(p, x, CLASSES) for model, p in of_both]

    (one, aux), (two, aux_too) = both(normal_params(short, x))
    assert_same(apart(one), two, 1e-12)
    norms, norms_too = aux.grad_norms, aux_too.grad_norms
    expected = {"0.0.0": (3, 5), "0.1": (3, 2, 5), "1.f": (2, 5), "1.g": (2, 5), "2": (5,)}
    assert {name: norm.shape for name, norm in norms.items()} == expected
    assert len(norms_too) == 14
    assert_same(norms["0.1"][2, 1], norms_too["2.1.1"], 1e-12)
    assert (np.asarray(norms["0.1"]) > 14**-0.5).any()


def test_names_with_dots_are_not_nesting():
    linear = hg.linear(6, bias=False)
    dotted, plain = hg.chain(**{"a.b": linear, "a": hg.chain(b=linear)}), hg.chain(c=linear, a=hg.chain(b=linear))

    def clip(model, params):
        function = hg.clipped_grad(model, LOSS, l2_clip_norm=0.1, style="layer", return_norms=True)
        return function(params, POINTS, CLASSES)

    @jax.jit
    def both(params):
        return clip(dotted, {"a.b": params["c"], "a": params["a"]}), clip(plain, params)

    (found, aux), (expected, aux_too) = both(normal_params(plain, POINTS))
    assert_same((found["a.b"], found["a"]), (expected["c"], expected["a"]), 1e-12)
    assert_same(aux.grad_norms, {"'a.b'": aux_too.grad_norms["c"], "a.b": aux_too.grad_norms["a.b"]}, 1e-12)


def test_examples_of_nans_and_padding_are_left_out():
    _, g, _ = made("mlp")
    norms = norms_of(g)
    bad = np.arange(5) == 3
    x = np.where(bad[:, None], np.nan, X)
    settings = (({}, None), ({}, bad), ({"nan_safe": False}, bad), ({"nan_safe": False}, None))

    run = jax.jit(lambda x: [of_mlp(x, padding=p, return_norms=True, **options) for options, p in settings])
    *safe, (unsafe, _) = run(x)
    for (found, aux), (_, padding) in zip(safe, settings[:3], strict=True):
        assert_same(found, clipped(g, np.where(bad, 0, np.minimum(1, 1 / norms))), 1e-11)
        grad_norms = np.asarray(aux.grad_norms)
        if padding is None:
            assert np.isnan(grad_norms).tolist() == bad.tolist()
        else:
            assert grad_norms[bad] == 0
        np.testing.assert_allclose(grad_norms[~bad], norms[~bad], rtol=1e-11)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(unsafe))


def test_padding_enters_nothing():
    """Neither the norms that clip_fn gets nor what is returned of the examples: as if it were not there."""

    def to_the_mean(norms):
        return jnp.where(norms > 0, jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1) / norms, 7.0)

    options = {"clip_fn": to_the_mean, "return_values": True, "return_norms": True}
    every, padding = [{**options, "style": style} for style in ("global", "layer")], np.arange(5) == 0
    run = jax.jit(lambda x: [(of_mlp(X[1:], LABELS[1:], **o), of_mlp(x, padding=padding, **o)) for o in every])

    for held in (np.asarray(X[0]), np.nan):
        for (expected, aux_alone), (found, aux) in run(np.where(padding[:, None], held, X)):
            assert_same(found, expected, 1e-11)
            aux = jax.tree.map(np.asarray, aux)
            assert_same(jax.tree.map(lambda a: a[1:], aux), aux_alone, 1e-11)
            assert all(leaf[0] == 0 for leaf in jax.tree.leaves(aux))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in ("lstm", "gpt2")])
def test_a_padding_example_of_nonsense(name):
    """Ids outside of the vocabulary, and parameters that see them in other ways than a matrix product."""
    model, params, x, target = drawn(name)
    function = jax.jit(hg.clipped_grad(model, LOSS, l2_clip_norm=1.0, nan_safe=False))
    padding = np.arange(4) == 1
    expected = function(params, x, target, is_padding_example=padding)
    nonsense = np.where(padding[:, None], -(2**31), x), np.where(padding[:, None], 2**31 - 1, target)
    assert_same(function(params, *nonsense, is_padding_example=padding), expected, 1e-12)


LINE, SQUARED_ERROR = hg.linear(1, bias=False), hg.squared_error()


def test_a_gradient_of_zero_is_not_divided_by():
    """Where the loss is flat: the norm is 0, the weight 1."""
    function = jax.jit(hg.clipped_grad(hg.chain(LINE, hg.relu()), SQUARED_ERROR, l2_clip_norm=1.0))
    found = function((hg.LinearParams(np.ones((1, 1))), ()), np.array([[-1.0], [2.0]]), np.zeros((2, 1)))
    np.testing.assert_allclose(found[0].W, [[1.0]], rtol=1e-15)


def test_a_mean_is_rounded_once_it_is_one():
    """Its sum, −96000, is no float16."""
    x, target = np.ones((16, 1), np.float16), np.full((16, 1), 3000, np.float16)
    params = hg.LinearParams(np.zeros((1, 1), np.float16))
    found = jax.jit(hg.clipped_grad(LINE, SQUARED_ERROR, l2_clip_norm=1e9, normalize_by=16.0))(params, x, target).W
    assert found.dtype == np.float16
    assert found.item() == -6000


def test_norms_at_the_ends_of_the_range():
    """A gradient of 10¹⁵ is clipped; one of 10³⁰, whose square is no float32, is left out; one of 10⁻³⁰ is whole."""
    x = np.asarray([[1e15], [1e30], [1e-30]], np.float32)
    params, target = hg.LinearParams(np.zeros((1, 1), np.float32)), np.full((3, 1), -0.5, np.float32)
    function = jax.jit(hg.clipped_grad(LINE, SQUARED_ERROR, l2_clip_norm=2.0, return_norms=True))
    found, aux = function(params, x, target)
    np.testing.assert_allclose(found.W, [[2.0]], rtol=1e-6)
    np.testing.assert_array_equal(np.isinf(aux.grad_norms), [False, True, False])
    alone, _ = function(params, x[2:], target[2:])
    np.testing.assert_allclose(alone.W, [[1e-30]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2_clip_norm": 0.0}, r"l2_clip_norm must be a positive number, got 0\.0$"),
        ({"l2_clip_norm": -1}, "l2_clip_norm must be a positive number, got -1$"),
        ({"normalize_by": 0}, "normalize_by must be a positive number, got 0$"),
        ({"style": "token"}, "style must be 'global' or 'layer', got 'token'$"),
        ({"padding": np.zeros(4, bool)}, r"is_padding_example must have .*got bool \(4,\)"),
        ({"clip_fn": jnp.sum}, r"what clip_fn gives must have shape \(5,\)"),
        ({"model": hg.tanh()}, "expected a model with parameters, got none"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(hg.InputError, match=f"^clipped_grad: {message}"):
        shapes(**{"model": MODEL, "loss": LOSS, "x": X, "target": LABELS, **options})


def test_a_layer_that_sums_is_named():
    linear = hg.linear(3)
    summing = hg.Layer(linear.init, linear.forward, lambda kept, dy: hg.materialize(linear.backward(kept, dy)))
    message = r"sq_norms: second\.W must be a factor, got a gradient that is summed already, float64 \(6, 3\).*"
    model = hg.chain(first=hg.linear(6), second=summing)
    assert_refused({message: lambda: shapes(model, LOSS, X, LABELS)})
