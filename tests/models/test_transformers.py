"""GPT-2 and Llama: every gradient against autodiff, and the forms of a model against each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, both_gradients, drawn

import handgrad as hg
from handgrad import layers
from handgrad.models import Gpt2Config, LlamaConfig, gpt2, llama

GPT2 = Gpt2Config(vocabulary=11, tokens=6, width=8, blocks=2, heads=2)
LLAMA = LlamaConfig(vocabulary=11, width=8, hidden=12, blocks=2, heads=4, kv_heads=2, rotary_base=100.0)
MODELS = {"gpt2": (gpt2, GPT2), "llama": (llama, LLAMA)}
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LABELS = np.array([[1, 4, 1, 5, 9], [2, 6, 5, 3, 10]])
LOSS = hg.softmax_cross_entropy()
RNG = np.random.default_rng(0)

both = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])


@functools.cache
def made(name):
    """A model and parameters none of which is 0 or 1."""
    make, config = MODELS[name]
    return make(config), drawn(make(config), IDS, 0.4)


@functools.cache
def gradients(name):
    """Value and gradients, by hand and by autodiff."""
    model, params = made(name)
    return both_gradients(model, LOSS, 0)(params, IDS, LABELS)


def assert_close(one, other, rtol):
    """Leaf by leaf. A bias of all keys shifts each row of scores by one number, which softmax doesn't see: its gradient
    is 0, and is compared with the largest."""
    leaves = [np.asarray(b) for b in jax.tree.leaves(other)]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), leaves, strict=True):
        is_zero = jax.tree_util.keystr(path, simple=True, separator=".").endswith("key.b")
        scale = max(np.abs(leaf).max() for leaf in leaves) if is_zero else np.abs(b).max()
        assert np.abs(np.asarray(a) - b).max() <= rtol * scale, path


@both
def test_gradient_is_autodiffs(name):
    for found, expected in zip(*gradients(name), strict=True):
        assert_close(found, expected, 1e-11)


@both
def test_init_in_float32(name):
    model, _ = made(name)

    @jax.jit
    def started(key):
        params = model.init(key, IDS)
        return params, hg.objective(model, LOSS)(params, IDS, LABELS)

    params, loss = started(jax.random.key(0, impl="unsafe_rbg"))  # threefry takes longer to compile
    (_, logits), grads = jax.eval_shape(hg.value_and_grad(model, LOSS, has_aux=True), params, IDS, LABELS)
    assert logits.shape == (2, 5, 11)
    assert 0.5 < loss.item() / 5 / np.log(11) < 2
    assert jax.tree.map(lambda p: (p.shape, p.dtype), params) == jax.tree.map(lambda g: (g.shape, g.dtype), grads)


@both
def test_tiled_attention_recomputed_blocks_and_a_projection_change_nothing(name):
    model, config = MODELS[name]
    other = model(dataclasses.replace(config, tile=2, residuals="recompute", head="projection"))
    by_hand = jax.jit(hg.value_and_grad(other, hg.linear_cross_entropy(chunk=4)))
    assert_close(by_hand(made(name)[1], IDS, LABELS), gradients(name)[0], 1e-11)


PADDED = {
    "gpt2": ({}, hg.Tokens(np.array([[77, 77, 77, 3, 1], [9, 2, 6, 5, 3]]), np.arange(5) >= np.array([[3], [0]]))),
    "llama": ({"bias": "qkv", "qk_norm": True, "tied": True, "window": 3}, hg.Sequences(IDS, np.array([2, 5]))),
}


@both
def test_a_padded_batch(name):
    """Of two tokens before or behind padding: loss and gradients are those of the examples alone, to rounding; with
    what Qwen has; with blocks that are recomputed, in tiles, and logits in chunks."""
    make, config = MODELS[name]
    options, x = PADDED[name]
    config = dataclasses.replace(config, **options, blocks=1)
    model, other = make(config), make(dataclasses.replace(config, residuals="recompute", tile=2, head="projection"))
    loss, weights = hg.linear_cross_entropy(chunk=4, ignore_index=-100), np.array([0.3, 0.7])
    own = np.asarray(x.mask) if name == "gpt2" else np.arange(5) < x.lengths[:, None]
    labels = np.where(own, LABELS, -100)
    params = drawn(model, IDS, 0.4)

    @jax.jit
    def run(params):
        together = hg.value_and_grad(other, loss)(params, x, labels, weights)
        run_alone = hg.value_and_grad(model, LOSS)
        rows = zip(np.asarray(x.X), labels, own, weights, strict=True)
        alone = [run_alone(params, ids[None, o], target[None, o], w[None]) for ids, target, o, w in rows]
        return together, jax.tree.map(lambda *a: sum(a), *alone)

    assert_close(*run(params), 1e-11)


def test_blocks_keep_no_mask_of_their_own():
    """Of all blocks one, (2, 1, 1, 5), also where tiles need it in the backward pass."""
    model = gpt2(dataclasses.replace(GPT2, tile=2))
    _, residuals = jax.eval_shape(model.forward, made("gpt2")[1], PADDED["gpt2"][1])
    assert [leaf.shape for leaf in jax.tree.leaves(residuals) if leaf.dtype == bool] == [(2, 1, 1, 5)]


def test_padded_batches_are_refused_that_are_not():
    model, _ = made("gpt2")
    params, mask = made("gpt2")[1], np.ones((2, 5), bool)
    assert_refused(
        {
            "padded: x.X must be ids of shape .batch, tokens., got float64 .2, 5.": lambda: model.forward(
                params, hg.Tokens(IDS * 1.0, mask)
            ),
            "padded: Sequences must have lengths and no state": lambda: model.forward(params, hg.Sequences(IDS)),
            "padded: a transformer of ids takes no context and no bias": lambda: model.forward(
                params, hg.Tokens(IDS, mask, context=IDS)
            ),
            "padded: x.lengths must have shape .2,. .*": lambda: model.forward(params, hg.Sequences(IDS, np.ones(3))),
            "padded: x.mask must have shape .2, 5. .*": lambda: model.forward(params, hg.Tokens(IDS, mask[:, :3])),
        }
    )


ANSWERS, CHOSEN = RNG.integers(0, 11, (2, 2, 2, 3))  # (pairs, answers, tokens)
CHOSEN[0, 1, 2] = -100  # a short answer
OWN = CHOSEN >= 0
REFERENCE, OLD = (np.where(OWN, -RNG.gamma(2, 1, OWN.shape), 0) for _ in range(2))
ADVANTAGES = RNG.standard_normal((2, 2))


def of_pairs(loss):
    """A loss of (pairs, answers, tokens) as one of (pairs, tokens)."""

    def backward(residuals, dC):
        dL = loss.backward(residuals, dC)
        return dL.reshape(len(dL), -1)

    return hg.Loss(lambda L, target: loss.forward(L.reshape(len(L), 2, -1), target), backward)


def test_a_projection_under_dpo_and_grpo():
    """Against plain JAX with all logits. Both answers of a pair are one row, so that a pair is one example: no token
    sees the other answer, and positions begin anew in each."""
    config = dataclasses.replace(GPT2, tokens=3, blocks=1)
    logits, model = (gpt2(dataclasses.replace(config, head=head)) for head in ("logits", "projection"))
    target, options = layers.LogProbabilityTarget, {"chunk": 5, "ignore_index": -100}
    dpo = layers.linear_log_probability(of_pairs(hg.dpo_loss(0.5)), **options)
    grpo = layers.linear_log_probability(hg.grpo_loss(), **options)
    rows, labels, own, old, reference = (a.reshape(4, 3) for a in (ANSWERS, CHOSEN, OWN, OLD, REFERENCE))
    apart = np.tile(np.kron(np.eye(2), np.ones((3, 3))) > 0, (2, 1, 1, 1))
    pairs = hg.Tokens(ANSWERS.reshape(2, 6), apart, np.tile(np.arange(3), (2, 2)))
    policy = layers.PolicyTarget(old, ADVANTAGES.reshape(4), reference, own)

    def log_probabilities(params):
        L = jax.nn.log_softmax(logits.forward(params, rows)[0])
        return jnp.where(own, jnp.take_along_axis(L, np.maximum(labels, 0)[..., None], -1)[..., 0], 0)

    def plain_dpo(params):
        ratios = jnp.sum(log_probabilities(params) - reference, -1).reshape(2, 2)
        return jnp.mean(-jax.nn.log_sigmoid(0.5 * (ratios[:, 0] - ratios[:, 1])))

    def plain_grpo(params):
        L, A = log_probabilities(params), ADVANTAGES.reshape(4, 1)
        rho, r = jnp.exp(L - old), reference - L
        C = 0.04 * (jnp.exp(r) - r - 1) - jnp.minimum(rho * A, jnp.clip(rho, 0.8, 1.2) * A)
        return jnp.mean(jnp.sum(C * own, -1) / own.sum(-1))

    @jax.jit
    def every_way(params):
        of_pair = hg.value_and_grad(model, dpo)(params, pairs, target(CHOSEN.reshape(2, 6), REFERENCE))
        of_group = hg.value_and_grad(model, grpo)(params, rows, target(labels, policy))
        return (of_pair, of_group), [jax.value_and_grad(plain)(params) for plain in (plain_dpo, plain_grpo)]

    for found, expected in zip(*every_way(drawn(logits, pairs, 0.4)), strict=True):
        assert_close(found, expected, 1e-11)


@pytest.mark.slow
@both
def test_checker_finds_nothing(name):
    model, params = made(name)
    report = hg.check_model(model, LOSS, params, IDS, LABELS)
    untold = {row.leaf for row in report.rows if row.status != "PASS"}
    # A gradient that is 0 everywhere can't be told from none at all, and the checker says so.
    assert untold == ({"params.body.blocks.attention.mix.key.b"} if name == "gpt2" else set()), report.reason
    assert report.verdict == ("INCONCLUSIVE" if untold else "PASS")


def test_the_tables_two_uses_are_shared():
    model, params = made("gpt2")
    _, factors = jax.eval_shape(hg.value_and_factors(model, LOSS), params, IDS, LABELS)
    leaves = jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)
    (shared,) = [factor for factor in leaves if isinstance(factor, hg.factors.Shared)]
    assert [type(site).__name__ for site in shared.sites] == ["Scatter", "Outer"]


def test_causality():
    model, params = made("gpt2")
    forward = jax.jit(lambda ids: model.forward(params, ids)[0])
    one, other = (np.asarray(forward(ids)) for ids in (IDS, np.where(np.arange(5) == 3, 0, IDS)))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert np.abs(one[:, 3:] - other[:, 3:]).min() > 0


def test_too_long_a_sequence():
    model, params = made("gpt2")
    sentence = r"in layer body.positions: position_embedding_forward: X must have at most 6 tokens.* \(1, 7, 8\)"
    assert_refused({sentence: lambda: jax.eval_shape(model.forward, params, np.zeros((1, 7), int))})


@pytest.mark.slow
def test_the_smallest_gpt2_published():
    """124 million parameters: one gradient in float32, no further than three times autodiff's error from float64's."""
    model = gpt2()
    ids = jax.random.randint(jax.random.key(1), (1, 64), 0, 50257)
    labels = jnp.roll(ids, -1, axis=1)
    params = model.init(jax.random.key(0), ids.astype("int32"))
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    assert sum(p.size for p in jax.tree.leaves(params)) == 124_439_808
    autodiff = jax.jit(jax.grad(hg.objective(model, LOSS)))
    mine = jax.jit(hg.grad(model, LOSS))(params, ids, labels)
    theirs = autodiff(params, ids, labels)
    truth = autodiff(jax.tree.map(lambda p: p.astype(jnp.float64), params), ids, labels)
    leaves = jax.tree_util.tree_leaves_with_path(mine), jax.tree.leaves(theirs), jax.tree.leaves(truth)
    for (path, a), b, t in zip(*leaves, strict=True):
        error, of_autodiff = (float(jnp.linalg.norm((g - t).ravel()) / jnp.linalg.norm(t.ravel())) for g in (a, b))
        assert error <= 3 * of_autodiff, (path, error, of_autodiff)
