"""Every fold over whole models, against the gradients of each example that vmap(jax.grad) materializes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same
from whole_models import LOSS, MODELS, made, normal_params, rows

import handgrad as hg
from handgrad import layers
from handgrad.factors import Outer, PerExample, Scatter, Shared, Stacked, Total
from handgrad.folds import per_example
from handgrad.folds.per_example import project, sq_norms

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in MODELS])
def test_folds(name):
    """Every fold of every model, and the folds of Pᵀ g_b for a P for every matrix; all else is as it was."""
    factors, g, _ = made(name)
    P = {
        path_of(path): RNG.standard_normal((*f.shape[:-1], 2))
        for path, f in jax.tree.leaves_with_path(factors, is_leaf=hg.factors.is_factor)
        if is_matrix(f)
    }
    assert len(P) >= 2

    @jax.jit
    def folds(factors, P):
        projected = project(factors, P)
        return {
            "materialized": per_example.per_example_grads(factors),
            "norms of leaves": sq_norms(factors, per_leaf=True),
            "norms": sq_norms(factors),
            "directly": sq_norms(factors, method="direct"),
            "by gram": sq_norms(factors, method="gram"),
            "moments": per_example.second_moment(factors),
            "variance": per_example.variance(factors),
            "of the batch": per_example.variance(factors, ddof=0),
            "gram": per_example.gram(factors),
            "projected": per_example.per_example_grads(projected),
            "norms of projected": sq_norms(projected),
            "sum of projected": hg.materialize(projected),
        }

    def projected(path, a):
        of_path = P.get(path_of(path))
        return a if of_path is None else np.einsum("b...io,...ir->b...ro", a, of_path)

    of_P = jax.tree_util.tree_map_with_path(projected, g)
    G = rows(g)
    expected = {
        "materialized": g,
        "norms of leaves": jax.tree.map(lambda a: np.sum(a**2, axis=tuple(range(1, a.ndim))), g),
        **dict.fromkeys(("norms", "directly", "by gram"), np.sum(G**2, axis=1)),
        "moments": jax.tree.map(lambda a: np.sum(a**2, axis=0), g),
        "variance": jax.tree.map(lambda a: np.var(a, axis=0, ddof=1), g),
        "of the batch": jax.tree.map(lambda a: np.var(a, axis=0), g),
        "gram": G @ G.T,
        "projected": of_P,
        "norms of projected": np.sum(rows(of_P) ** 2, axis=1),
        "sum of projected": jax.tree.map(lambda a: a.sum(0), of_P),
    }
    assert_close(folds(factors, P), expected)


def path_of(path):
    return jax.tree_util.keystr(path, simple=True, separator=".")


def is_matrix(factor):
    return isinstance(factor.factor if isinstance(factor, Stacked) else factor, Outer | Scatter | Shared)


def assert_close(found, expected):
    """Within 1e-11 of each array's largest. What is rounding alone (a bias of all keys shifts each row of scores by one
    number, which softmax doesn't see) is as good as 0."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    largest = {what: max(np.abs(a).max() for a in jax.tree.leaves(tree)) for what, tree in expected.items()}
    for what, scale in largest.items():
        for one, two in zip(jax.tree.leaves(found[what]), jax.tree.leaves(expected[what]), strict=True):
            noise = np.abs(two).max() <= 1e-14 * scale
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-14 * scale if noise else 1e-11 * np.abs(two).max())


def test_norms_of_tokens():
    """A network that treats tokens alike: each token's part of g_b is the gradient of its own loss."""
    model = hg.chain(hg.linear(4), hg.tanh(), layers.layer_norm(), hg.linear(3))
    x, target = RNG.standard_normal((3, 4, 2)), RNG.integers(0, 3, (3, 4))
    alone = jax.grad(hg.objective(model, LOSS))

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, target)
        rows, labels = x.reshape(-1, 1, 2), target.reshape(-1, 1)
        g = jax.vmap(lambda x, target: alone(params, x, target))(rows, labels)
        norms = [sq_norms(factors, unit="token", per_leaf=leaf) for leaf in (False, True)]
        expected = jax.tree.map(lambda a: jnp.sum(a**2, axis=tuple(range(1, a.ndim))), g)
        return norms, [sum(jax.tree.leaves(expected)), expected]

    assert_same(*both(normal_params(model, x)), 1e-12)


# Noise


def test_noise_scale_of_known_gradients():
    """Of g_b that are drawn from N(G, Σ): the mean over 2,000 batches is |G|² and tr Σ, within 3 standard errors."""
    G, deviation = np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, 3.0])
    draws = G + deviation * np.random.default_rng(5).standard_normal((2000, 8, 3))
    found = jax.jit(jax.vmap(lambda g: per_example.noise_scale({"W": PerExample(g)})))(draws)
    sq_norm, trace, simple = map(np.asarray, found)
    for values, truth in ((sq_norm, G @ G), (trace, (deviation**2).sum())):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - truth) < 3 * error
        assert error < 0.05 * truth
    np.testing.assert_allclose(simple, trace / sq_norm, rtol=1e-12)


@pytest.mark.xdist_group("repeat")
def test_noise_scale_of_a_model():
    """Against McCandlish et al.'s equations, with B_small = 1; parameters' estimates add up."""
    factors, g, _ = made("repeat")
    G = rows(g)
    B, small, big = len(G), np.mean(np.sum(G**2, axis=1)), np.sum(np.mean(G, axis=0) ** 2)
    found, of_leaves = jax.jit(lambda f: [per_example.noise_scale(f, per_leaf=p) for p in (False, True)])(factors)
    sq_norm, trace = (B * big - small) / (B - 1), (small - big) / (1 - 1 / B)
    assert_same(found, per_example.NoiseScale(sq_norm, trace, trace / sq_norm), 1e-11)
    of_leaves = jax.tree.leaves(of_leaves, is_leaf=lambda node: isinstance(node, per_example.NoiseScale))
    assert len(of_leaves) == len(jax.tree.leaves(g))
    np.testing.assert_allclose(sum(one.trace.item() for one in of_leaves), trace, rtol=1e-11)


# What it refuses


FACTORS = {"a": {"W": Outer(np.ones((3, 2)), np.ones((3, 4)))}, "b": Total(np.ones((3, 4)))}
SUMMED = {"a": {"W": np.ones((2, 4))}, "b": FACTORS["b"]}
ALONE = {"b": Total(np.ones((1, 4)))}
P = {"a.W": np.ones((2, 1))}


def test_a_gradient_that_is_summed_already():
    said = r": a.W must be a factor, got a gradient that is summed already, float64 \(2, 4\)"
    folds = "sq_norms", "per_example_grads", "second_moment", "variance", "gram", "noise_scale"
    rows = {fold: partial(getattr(per_example, fold), SUMMED) for fold in folds}
    assert_refused({f + said: call for f, call in {**rows, "project": partial(project, SUMMED, P)}.items()})


BAD_INPUT = {
    "noise_scale: the batch must have more than 1 example, got 1": partial(per_example.noise_scale, ALONE),
    "variance: the batch must have more than 1 example, got 1": partial(per_example.variance, ALONE),
    "variance: ddof must be 0 or 1, got 3": partial(per_example.variance, FACTORS, ddof=3),
    "sq_norms: expected factors of a model with parameters, got none": partial(sq_norms, {}),
    "sq_norms: unit must be 'example' or 'token', got 'word'": partial(sq_norms, FACTORS, unit="word"),
    "sq_norms: method must be 'auto', 'gram' or 'direct', got 'fast'": partial(sq_norms, FACTORS, method="fast"),
    "PerExample.by_token: this gradient is not a sum over tokens": partial(
        sq_norms, {"g": PerExample(np.ones((2, 3)))}, unit="token"
    ),
    "sq_norms: every parameter must see the same tokens, 3 of them, got 6": partial(
        sq_norms, {**FACTORS, "c": Total(np.ones((3, 2, 4)))}, unit="token"
    ),
    "Outer.project: P must have shape (2, r), got float64 (3, 1)": partial(project, FACTORS, {"a.W": np.ones((3, 1))}),
    "Total.project: expected a matrix's factor, got that of (4,)": partial(project, FACTORS, {"b": np.ones((4, 1))}),
    "project: P must name parameters, as 'a.W', got 'W'": partial(project, FACTORS, {"W": P["a.W"]}),
}


def test_bad_input():
    assert_refused({re.escape(said): call for said, call in BAD_INPUT.items()})


def test_names_of_keys_with_dots():
    """Which of two parameters a name means: a key that holds a dot is quoted."""
    factors = {"a.b": FACTORS["b"], "a": {"b": FACTORS["a"]["W"]}}
    assert [row.path for row in hg.costs(factors)] == ["a.b", "'a.b'"]
    projected = project(factors, {"a.b": np.ones((2, 1))})
    assert (projected["a"]["b"].shape, projected["a.b"].shape) == ((1, 4), (4,))


# Every layer with parameters, and an input for it


ROWS, STEPS, PLANE = (RNG.standard_normal((3, *shape)) for shape in ((4,), (5, 4), (5, 5, 4)))
INDICES = np.array([[0, 2, 2], [1, 1, 1], [3, 0, 4]])
HALF, WHOLE = (hg.chain(hg.linear(n), hg.tanh()) for n in (2, 4))
LAYERS = {
    "linear": (hg.linear(3), STEPS),
    "convolution": (layers.convolution(4, (3, 2), strides=2, groups=2), PLANE),
    "transposed_convolution": (layers.transposed_convolution(3, 3, strides=2), PLANE),
    "layer_norm": (layers.layer_norm(), STEPS),
    "rms_norm": (layers.rms_norm(), STEPS),
    "group_norm": (layers.group_norm(2), PLANE),
    "instance_norm": (layers.instance_norm(), PLANE),
    "batch_norm_inference": (layers.batch_norm_inference(jnp.full(4, 0.1), jnp.full(4, 2.0)), PLANE),
    "embedding": (layers.embedding(5, 3), INDICES),
    "position_embedding": (layers.position_embedding(6), STEPS),
    "tied_embedding": (layers.tied_embedding(5, 3, hg.tanh()), INDICES),
    "rnn": (layers.rnn(3), STEPS),
    "lstm": (layers.bidirectional(layers.lstm(3), layers.lstm(3)), STEPS),
    "gru": (layers.gru(3), STEPS),
    "multi_head_attention": (layers.multi_head_attention(2, bias=False), STEPS),
    "gated_mlp": (layers.gated_mlp(6), STEPS),
    "mixture_of_experts": (layers.mixture_of_experts(WHOLE, 3, k=2), STEPS),
    "lora_linear": (layers.lora_linear(3, rank=2), STEPS),
    "einsum": (layers.einsum("bti,thi->bth", (5, 3, 4)), STEPS),
    "linear_recurrence": (layers.linear_recurrence(), STEPS),
    "delta_net": (layers.delta_net(1, gated=True), STEPS),
    "mamba": (layers.mamba(states=2), STEPS),
    "mamba2": (layers.mamba2(4, states=2, groups=2), STEPS),
    "reversible": (layers.reversible(HALF, HALF), ROWS),
}


def against_autodiff(model, loss, params, x, target):
    """Folds of the factors; the same from each example's gradient."""
    alone = jax.grad(hg.objective(model, loss))

    @jax.jit
    def both(params):
        g = jax.vmap(lambda x, target: alone(params, x[None], target[None]))(jnp.asarray(x), jnp.asarray(target))
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        G, moments = rows(g), jax.tree.map(lambda a: jnp.sum(a**2, axis=0), g)
        found = hg.sq_norms(factors), hg.second_moment(factors), hg.gram(factors)
        return found, (jnp.sum(G**2, axis=1), moments, G @ G.T)

    assert_same(*both(params), 1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name):
    layer, x = LAYERS[name]
    model = hg.chain(layer, weighted())
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda p: np.random.default_rng(3).uniform(0.3, 0.9, p.shape), like)
    target = np.zeros(jax.eval_shape(model.forward, params, x)[0].shape)
    against_autodiff(model, hg.squared_error(), params, x, target)


def test_a_head_inside_the_loss():
    """linear_cross_entropy's Recomputed factor, behind an ordinary layer."""
    model, loss = hg.chain(hg.linear(4), hg.tanh(), layers.projection(6)), layers.linear_cross_entropy()
    target = np.array([[0, 5, 2, 2, 1], [3, 3, 3, 3, 3], [4, 1, 0, 5, 2]])
    against_autodiff(model, loss, normal_params(model, STEPS), STEPS, target)


def weighted() -> hg.Layer:
    """Every output times a different number, so that no two count alike."""

    def numbers(x):
        return jnp.cos(jnp.arange(x[0].size, dtype=x.dtype)).reshape(1, *x.shape[1:]) + jnp.zeros_like(x)

    return hg.Layer(
        lambda key, x: (), lambda params, x, key=None: (x * numbers(x), x), lambda x, dy: (dy * numbers(x), ())
    )
