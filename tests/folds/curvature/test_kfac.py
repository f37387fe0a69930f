"""Kronecker factors: their formulas token by token, and the networks for which they are exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same
from whole_models import LOSS, MODELS, normal_params

import handgrad as hg
from handgrad.factors import Contraction, Correlation, Hadamard, Outer, Scatter, Shared, Stacked, Total
from handgrad.factors.windows import Window
from handgrad.folds.curvature import Diagonal, Kronecker, kfac_factors, kflr_factors, sampled_factors
from handgrad.folds.curvature.blocks import is_block
from handgrad.models import ResnetConfig, resnet

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, LAYERS = 4, 3, 2


def normal(*shape):
    return RNG.standard_normal(shape)


def pair(A, Delta, mode, seen=None):
    """The formulas of the docstring over the rows that count; A and Delta (batch, tokens, n)."""
    seen = np.ones(np.shape(Delta)[:2], bool) if seen is None else seen
    rows = [(a[s], d[s]) for a, d, s in zip(A, Delta, seen, strict=True)]
    own = [a for a, _ in rows if len(a)]
    if mode == "reduce":
        a, d = [a.mean(0) for a in own], [d.sum(0) for _, d in rows]
    else:
        a, d = np.concatenate(own), np.concatenate([d for _, d in rows])
    return Kronecker(sum(np.outer(one, one) for one in a) / len(a), sum(np.outer(one, one) for one in d) / len(rows))


def stacked(pairs, groups=1):
    return Kronecker(np.stack([one.A for one in pairs]), np.stack([one.G for one in pairs]), groups)


A, DELTA = normal(BATCH, TOKENS, 3), normal(BATCH, TOKENS, 2)
B, EPSILON = normal(BATCH, 2, 3), normal(BATCH, 2, 2)
LAYERED = normal(LAYERS, BATCH, TOKENS, 3), normal(LAYERS, BATCH, TOKENS, 2)
OTHERS = normal(LAYERS, BATCH, 1, 3), normal(LAYERS, BATCH, 1, 2)
X, OF_OUTPUTS = normal(BATCH, 4, 4), normal(BATCH, 3, 6)
BOTH = np.concatenate([A, B], axis=1), np.concatenate([DELTA, EPSILON], axis=1)
WINDOW = {groups: Window((2,), (1,), ((0, 0),), (1,), groups) for groups in (1, 2)}


def patch(i, group=slice(None)):
    """What output i saw, tap by tap: (batch, taps × n_in)."""
    return np.concatenate([X[:, i + t, group] for t in range(2)], axis=-1)


PATCHES = np.stack([patch(i) for i in range(3)], axis=1)


def of_group(g):
    """Patches and cotangents of one of two groups: (batch, outputs, ...)."""
    return np.stack([patch(i, slice(2 * g, 2 * g + 2)) for i in range(3)], axis=1), OF_OUTPUTS[..., 3 * g : 3 * g + 3]


FACTORS = {
    "outer": Outer(A, DELTA),
    "one token": Outer(A[:, 0], DELTA[:, 0]),
    "stacked": Stacked(Outer(*LAYERED)),
    "shared": Shared((Outer(A, DELTA), Outer(B, EPSILON))),
    "shared stacked": Shared((Stacked(Outer(*LAYERED)), Stacked(Outer(*OTHERS)))),
    "correlation": Correlation(X, OF_OUTPUTS, WINDOW[1]),
    "correlation of groups": Correlation(X, OF_OUTPUTS, WINDOW[2]),
}


def expected_pairs(mode):
    layers = [pair(a, d, mode) for a, d in zip(*LAYERED, strict=True)]
    uses = [np.concatenate(both, axis=2) for both in zip(LAYERED, OTHERS, strict=True)]
    return {
        "outer": pair(A, DELTA, mode),
        "one token": pair(A[:, :1], DELTA[:, :1], mode),
        "stacked": stacked(layers),
        "shared": pair(*BOTH, mode),
        "shared stacked": stacked([pair(a, d, mode) for a, d in zip(*uses, strict=True)]),
        "correlation": pair(PATCHES, OF_OUTPUTS, mode),
        "correlation of groups": stacked([pair(*of_group(g), mode) for g in range(2)], groups=2),
    }


@pytest.mark.parametrize("mode", ["expand", "reduce"])
def test_the_formulas(mode):
    assert_same(jax.jit(lambda factors: kfac_factors(factors, mode))(FACTORS), expected_pairs(mode))


SEEN = np.array([[True, False, True], [True, True, True], [False, False, False], [False, True, False]])


@pytest.mark.parametrize("mode", ["expand", "reduce"])
def test_the_formulas_of_the_tokens_that_count(mode):
    """The others hold NaN on the left, and 0 on the right. The third example has none: it is left out of A's mean."""
    outer = Outer(np.where(SEEN[..., None], A, np.nan), np.where(SEEN[..., None], DELTA, 0), mask=SEEN)
    factors = {
        "outer": outer,
        "stacked": Stacked(jax.tree.map(lambda a: np.stack([a, 2 * a if a.dtype != bool else a]), outer)),
        "shared": Shared((outer, Outer(B, EPSILON))),
        "correlation": Correlation(X, np.where(SEEN[..., None], OF_OUTPUTS, 0), WINDOW[1], mask=SEEN),
    }
    of_outer, every = pair(A, DELTA, mode, SEEN), np.ones((BATCH, 2), bool)
    expected = {
        "outer": of_outer,
        "stacked": stacked([of_outer, pair(2 * A, 2 * DELTA, mode, SEEN)]),
        "shared": pair(*BOTH, mode, np.concatenate([SEEN, every], axis=1)),
        "correlation": pair(PATCHES, OF_OUTPUTS, mode, SEEN),
        "by token": pair(A.reshape(-1, 1, 3), DELTA.reshape(-1, 1, 2), mode, SEEN.reshape(-1, 1)),
    }

    @jax.jit
    def found(factors):
        return kfac_factors({**factors, "by token": factors["outer"].by_token()}, mode)

    assert_same(found(factors), expected)


def test_what_has_no_pair_has_the_diagonal():
    """Biases, scales, tables, einsum's weights, and a table that is a head as well: exactly the second moment."""
    ids = RNG.integers(0, 3, (BATCH, TOKENS))
    table = Scatter(ids, normal(BATCH, TOKENS, 2), 3)
    factors = {
        "bias": Total(DELTA),
        "scale": Hadamard(A, A),
        "table": table,
        "einsum": Contraction(A, DELTA, "bti,bto->io"),
        "tied": Shared((table, Outer(A, DELTA))),
        "biases": Stacked(Total(LAYERED[1])),
        "no bias": None,
    }

    @jax.jit
    def both(factors):
        every = jax.tree.map(lambda factor: factor.per_example(), factors, is_leaf=hg.factors.is_factor)
        return kfac_factors(factors), jax.tree.map(lambda g: Diagonal(jnp.mean(g**2, axis=0)), every)

    assert_same(*both(factors))


def matrix(block, shape):
    units = np.eye(int(np.prod(shape)))
    return jax.vmap(lambda unit: block.times(unit.reshape(shape)).reshape(-1))(units).T


def test_exact_for_a_batch_of_one():
    """1/1 g gᵀ = (a ⊗ δ)(a ⊗ δ)ᵀ = a aᵀ ⊗ δ δᵀ."""
    model, x = hg.chain(hg.linear(3), hg.tanh(), hg.linear(2, bias=False)), normal(1, 2)
    params = normal_params(model, x)

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, jnp.asarray([1]))
        gs = [factors[i].W.sum().reshape(-1) for i in (0, 2)]
        blocks = kfac_factors(factors)
        return [matrix(blocks[i].W, params[i].W.shape) for i in (0, 2)], [jnp.outer(g, g) for g in gs]

    assert_same(*both(params))


MEAN_OVER_TOKENS = hg.layers.from_rule(
    hg.Rule(lambda X: jax.vjp(partial(jnp.mean, axis=1), X), lambda pullback, dY: pullback(dY))
)


def deep_linear(*middle):
    return hg.chain(hg.linear(3, bias=False), hg.linear(2, bias=False), *middle, hg.linear(2, bias=False))


EXACT = {
    "no tokens": (deep_linear(), (BATCH, 2), (BATCH, 2), ("expand", "reduce")),
    "a loss for each token": (deep_linear(), (BATCH, TOKENS, 2), (BATCH, TOKENS, 2), ("expand",)),
    "tokens pooled": (deep_linear(MEAN_OVER_TOKENS), (BATCH, TOKENS, 2), (BATCH, 2), ("reduce",)),
    "outputs pooled": (
        hg.chain(hg.convolution(3, 2, bias=False), hg.convolution(2, 1, bias=False), hg.layers.global_average_pool()),
        (BATCH, 3, 3, 2),
        (BATCH, 2),
        ("reduce",),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_for_deep_linear_networks_and_squared_error(name):
    """Every δ is the same whatever the example: the GGN's blocks are Kronecker products (Eschenhagen et al. 2023)."""
    model, shape, outputs, modes = EXACT[name]
    x, target, loss = normal(*shape), normal(*outputs), hg.squared_error()
    params = normal_params(model, x)

    @jax.jit
    def both(params):
        J = jax.jacrev(lambda p: model.forward(p, x)[0].reshape(-1))(params)
        flat = jax.tree.map(lambda j: j.reshape(len(j), -1), J)
        exact = jax.tree.map(lambda j: 2 * j.T @ j / BATCH, flat)
        blocks = [kflr_factors(model, loss, params, x, target, mode) for mode in modes]
        matrices = [jax.tree.map(lambda b, p: matrix(b, p.shape), found, params, is_leaf=is_block) for found in blocks]
        return matrices, [exact] * len(modes)

    assert_same(*both(params), rtol=1e-11)


def test_exact_for_one_layer_and_softmax_of_one_example():
    """The GGN of a linear layer, H ⊗ x xᵀ: any loss, as long as there is one x."""
    model, x, params = hg.linear(3, bias=False), normal(1, 2), hg.LinearParams(normal(2, 3))
    found = jax.jit(lambda params: matrix(kflr_factors(model, LOSS, params, x, np.array([1])).W, (2, 3)))(params)
    e = np.exp(x @ params.W)[0]
    p = e / e.sum()
    assert_same(found, np.kron(x.T @ x, np.diag(p) - np.outer(p, p)), rtol=1e-11)


def test_estimates_of_kflr():
    """With samples, it is the mean of as many `kfac_factors(sampled_factors)`."""
    model = hg.chain(hg.linear(3), hg.repeat(hg.residual(hg.linear(3)), 2), hg.linear(2))
    x, labels = normal(BATCH, TOKENS, 2), RNG.integers(0, 2, (BATCH, TOKENS))

    @jax.jit
    def both(params):
        draw = sampled_factors(model, LOSS)
        each = [kfac_factors(draw(params, x, labels, key), "reduce") for key in jax.random.split(KEY, 3)]
        estimate = kflr_factors(model, LOSS, params, x, labels, "reduce", KEY, 3)
        return estimate, jax.tree.map(lambda *blocks: sum(blocks) / 3, *each)

    assert_same(*both(normal_params(model, x)))


def test_estimates_tend_to_the_exact_one():
    """G of 4,000 draws, within 5 standard errors."""
    model, x, labels = hg.linear(3), normal(BATCH, 2), np.arange(BATCH) % 3

    @jax.jit
    def both(params):
        draw = sampled_factors(model, LOSS)
        each = jax.vmap(lambda key: kfac_factors(draw(params, x, labels, key)))(jax.random.split(KEY, 4000))
        return each, kflr_factors(model, LOSS, params, x, labels)

    each, exact = jax.tree.map(np.asarray, both(hg.LinearParams(normal(2, 3), normal(3))))
    assert_same(each.W.A[0], exact.W.A)
    for draws, expected in ((each.W.G, exact.W.G), (each.b.d, exact.b.d)):
        error = np.std(draws, axis=0) / 4000**0.5
        assert error.min() > 0
        assert np.all(np.abs(np.mean(draws, axis=0) - expected) <= 5 * error)


WHOLE = {name: MODELS[name] for name in ("gpt2", "llama", "lstm")}
WHOLE["resnet"] = (
    resnet(ResnetConfig(widths=(4, 8), blocks=(1, 1), groups=2)),
    np.zeros((2, 8, 8, 1)),
    np.zeros(2, np.int32),
)


@pytest.mark.parametrize("name", WHOLE)
def test_every_parameter_of_a_whole_model(name):
    """Each has a block whose product is like the parameter; every weight of a linear map has a pair."""
    model, x, target = WHOLE[name]
    params = jax.eval_shape(model.init, KEY, x)

    def products(params):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, target)
        blocks = kfac_factors(factors)
        return jax.tree.map(lambda block, p: block.inverse(1e-3).times(p), blocks, params, is_leaf=is_block), blocks

    found, blocks = jax.eval_shape(products, params)
    assert jax.tree.map(lambda leaf: leaf.shape, found) == jax.tree.map(lambda leaf: leaf.shape, params)
    for path, block in jax.tree.leaves_with_path(blocks, is_leaf=is_block):
        leaf = jax.tree_util.keystr(path, simple=True, separator=".").split(".")[-1]
        assert isinstance(block, Kronecker) == (leaf in ("W", "U", "K")), path


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_sums_run_in_float32(dtype):
    """1,000 ones squared are 1,000; in bfloat16 they would stop at 256."""
    ones = np.ones((10, 100, 1), dtype)
    found = jax.jit(kfac_factors)((Outer(ones, ones), Total(ones[:, :1])))
    assert {block.dtype for block in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert (found[0].A.item(), found[0].G.item()) == (1, 100)


def test_refusals():
    """Of a gradient that is summed already; where examples interact: of factors, of the root and of draws."""
    summed = {"body": (Total(DELTA), hg.LinearParams(Outer(A, DELTA), jnp.ones(3)))}
    model = hg.chain(hg.linear(3), hg.layers.batch_norm(), hg.linear(2))
    x, labels = RNG.standard_normal((4, 2)), np.array([0, 1, 1, 0])
    params = jax.eval_shape(model.init, KEY, x)
    coupled = r".*: 0\.W must have a gradient of each example, but in layer 1: batch_norm couples the examples.*"
    calls = (
        lambda p: hg.empirical_fisher_diagonal(hg.value_and_factors(model, LOSS)(p, x, labels)[1]),
        lambda p: kflr_factors(model, LOSS, p, x, labels),
        lambda p: kfac_factors(hg.sampled_factors(model, LOSS)(p, x, labels, KEY)),
        lambda p: hg.ggn_diagonal(model, LOSS, p, x, labels, KEY, 2),
    )
    said = "kfac_factors: body.1.b must be a factor, got a gradient that is summed already, .*"
    assert_refused({said: partial(kfac_factors, summed)})
    for call in calls:
        assert_refused({coupled: partial(jax.eval_shape, call, params)})
