"""Padding has no part in anything: what stands past an example's end, NaN too, changes no value, gradient or fold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.folds.curvature import ggn_diagonal, kfac_factors, kflr_factors, sampled_factors
from handgrad.layers import CtcTarget, Sequences, bidirectional, ctc_loss, each_step, gru, lstm, rnn, stacked
from handgrad.models import LstmLanguageModelConfig, lstm_language_model

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TIME, LENGTHS = 4, np.array([4, 1, 3])
OWN = np.arange(TIME) < LENGTHS[:, None]
X = RNG.standard_normal((3, TIME, 2))
CLASSES, LABELS = np.array([0, 1, 1]), np.where(OWN, RNG.integers(0, 2, OWN.shape), -1)
IDS = RNG.integers(0, 5, OWN.shape)


def only_X():
    """The X of Sequences: for a loss that knows by its labels which steps to ignore."""
    return hg.Layer(lambda key, x: (), lambda params, x, key=None: (x.X, ()), lambda residuals, dy: (Sequences(dy), ()))


block = hg.residual(hg.chain(hg.linear(2), hg.tanh()))
LAST = {
    "both ways": hg.chain(
        each_step(hg.linear(3)),
        bidirectional(lstm(2, residuals="recompute"), gru(2, reverse=True)),
        stacked(rnn(2, "relu"), lstm(2, returns="last")),
    ),
    "gru": hg.chain(
        gru(2, reverse=True, truncate=2),
        each_step(hg.rms_norm()),
        gru(2, residuals="recompute"),
        rnn(2, returns="last"),
    ),
    "twice": hg.chain(each_step(hg.linear(3)), lstm(2), gru(2, reverse=True), rnn(2, returns="last")),
}
EACH = {
    "convolutions": hg.chain(
        each_step(hg.convolution(4, 3, groups=2)), each_step(hg.layer_norm()), gru(2), each_step(hg.convolution(2, 2))
    ),
    "blocks": hg.chain(each_step(hg.repeat(block, 2)), each_step(hg.layers.linear_recurrence(reverse=True)), lstm(2)),
}
MODELS = {name: (model, hg.softmax_cross_entropy(), CLASSES) for name, model in LAST.items()}
MODELS |= {
    name: (hg.chain(model, only_X()), hg.softmax_cross_entropy(ignore_index=-1), LABELS) for name, model in EACH.items()
}


def drawn(model, x):
    """Parameters of the model, none of them zero."""
    rng = np.random.default_rng(1)
    like = jax.eval_shape(lambda key: model.init(key, x), KEY)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), like)


def folds_of(model, loss, params, x, target, second_order):
    """Values, gradients and folds; for one of the models those too that run the model again, or differentiate twice."""
    losses, factors = hg.value_and_factors(model, loss)(params, x, target)
    found = {
        "losses": losses,
        "gradients": hg.grad(model, loss, argnums=(0, 1))(params, x, target),
        "each": hg.per_example_grads(factors),
        "norms": hg.sq_norms(factors, method="gram"),
        "kfac": kfac_factors(factors, "expand"),
    }
    if not second_order:
        return found
    sampled, data = sampled_factors(model, loss)(params, x, target, KEY), (model, loss, params, x, target)
    return found | {
        "norms": hg.sq_norms(factors, method="direct"),
        "by token": hg.sq_norms(factors, per_leaf=True, unit="token"),
        "gram": hg.gram(factors),
        "moments": (hg.second_moment(factors), hg.variance(factors), hg.noise_scale(factors)),
        "clipped": hg.clipped_grad(model, loss, l2_clip_norm=0.1, nan_safe=False)(params, x, target),
        "reduced": kfac_factors(factors, "reduce"),
        "sampled": kfac_factors(sampled, "expand"),
        "kflr": kflr_factors(*data),
        "diagonal": ggn_diagonal(*data),
        "products": [make(*data)(params) for make in (hg.ggn_vector_product, hg.hessian_vector_product)],
    }


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "twice")) for name in MODELS])
def test_nan_in_the_padding_changes_nothing(name):
    model, loss, target = MODELS[name]
    params = drawn(model, Sequences(jnp.asarray(X), LENGTHS))

    @jax.jit
    def run(X):
        return folds_of(model, loss, params, Sequences(X, LENGTHS), jnp.asarray(target), name == "twice")

    found, expected = (run(jnp.where(OWN[..., None], X, fill)) for fill in (jnp.nan, 0.0))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(expected))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def lstm_of_one(params, nothing, x):
    """The prediction of chain(each_step(linear), lstm(returns="last"), linear) for one example without padding, and the
    left sides of its products; `nothing` is added to each of these, so that its gradient is their right sides."""
    of_linear, of_lstm, of_head = params
    Z = x @ of_linear.W + of_linear.b[None] + nothing[0]
    h = c = jnp.zeros(of_lstm.U.shape[0])
    entered = []
    for z, e, r in zip(Z, nothing[1], nothing[2], strict=True):
        entered.append(h)
        i, f, g, o = jnp.split(z @ of_lstm.W + e + h @ of_lstm.U + r + of_lstm.b, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return h @ of_head.W + nothing[3][0] + of_head.b, (x, Z, jnp.stack(entered), h[None])


def kfac_by_definition(sides, mode):
    """A and G of rows (a_bt), (δ_bt) of each example."""
    N = len(sides)
    if mode == "expand":
        A = sum(a.T @ a for a, _ in sides) / sum(len(a) for a, _ in sides)
        return A, sum(d.T @ d for _, d in sides) / N
    means, sums = [a.mean(0) for a, _ in sides], [d.sum(0) for _, d in sides]
    return sum(np.outer(a, a) for a in means) / N, sum(np.outer(d, d) for d in sums) / N


def test_kfac_of_padded_sequences_is_that_of_sequences_one_by_one():
    """Its A takes as many rows as there are steps, and in "reduce" each example's mean is over its own."""
    model, loss = hg.chain(each_step(hg.linear(3)), lstm(2, returns="last"), hg.linear(2)), hg.softmax_cross_entropy()
    x = Sequences(jnp.where(OWN[..., None], X, jnp.nan), LENGTHS)
    params = drawn(model, x)

    @jax.jit
    def run(params):
        _, factors = hg.value_and_factors(model, loss)(params, x, jnp.asarray(CLASSES))
        return hg.per_example_grads(factors), [kfac_factors(factors, mode) for mode in ("expand", "reduce")]

    each, found = run(params)
    every = []
    for b, (T, label) in enumerate(zip(LENGTHS, CLASSES, strict=True)):

        def cost(params, nothing, one=X[b, :T], label=label):
            logits, sides = lstm_of_one(params, nothing, one)
            return -jax.nn.log_softmax(logits)[label], sides

        nothing = [jnp.zeros(shape) for shape in ((T, 3), (T, 8), (T, 8), (1, 2))]
        (of_params, right), left = jax.jit(jax.grad(cost, (0, 1), has_aux=True))(params, nothing)
        assert_same(jax.tree.map(lambda g, b=b: g[b], each), of_params)
        every.append([(np.asarray(a), np.asarray(d)) for a, d in zip(left, right, strict=True)])
    for blocks, mode in zip(found, ("expand", "reduce"), strict=True):
        pairs = blocks[0].W, blocks[1].W, blocks[1].U, blocks[2].W
        expected = [kfac_by_definition([sides[i] for sides in every], mode) for i in range(4)]
        assert_same([(pair.A, pair.G) for pair in pairs], expected)


LOSSES = {
    "ignored labels": (hg.softmax_cross_entropy(ignore_index=-1), hg.linear(2), LABELS),
    "projection": (hg.layers.linear_cross_entropy(chunk=2, ignore_index=-1), hg.layers.projection(2), LABELS),
    "ctc": (ctc_loss(), hg.linear(3), CtcTarget(np.array([[1, 2], [1, 2], [2, 1]]), LENGTHS, np.array([2, 1, 1]))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_kfac_where_the_loss_knows_what_is_padding(name):
    """No layer knows of it here: each token has a loss of its own or none, and those without have no say in A."""
    loss, head, target = LOSSES[name]
    model = hg.chain(hg.linear(3), hg.tanh(), head)
    params, target = drawn(model, jnp.asarray(X)), jax.tree.map(jnp.asarray, target)

    @jax.jit
    def run(X):
        _, factors = hg.value_and_factors(model, loss)(params, X, target)
        return [kfac_factors(factors, mode) for mode in ("expand", "reduce")]

    found, same = (run(jnp.where(OWN[..., None], X, fill)) for fill in (7.0, 0.0))
    jax.tree.map(np.testing.assert_array_equal, found, same)
    rows = [(X[b, :T], np.zeros((T, 1))) for b, T in enumerate(LENGTHS)]
    assert_same(
        [blocks[0].W.A for blocks in found], [kfac_by_definition(rows, mode)[0] for mode in ("expand", "reduce")]
    )


def test_kfac_counts_a_token_without_a_loss_that_another_reads():
    """A prompt's tokens have labels to ignore, but the answer's losses read them: all count but the last padding."""
    model = hg.chain(lstm(2), hg.linear(2))
    labels = np.array([[-1, -1, 0, 1], [-1, 1, 1, 0], [-1, 1, -1, -1]])
    params, loss = drawn(model, jnp.asarray(X)), hg.softmax_cross_entropy(ignore_index=-1)
    _, factors = jax.jit(hg.value_and_factors(model, loss))(params, jnp.asarray(X), jnp.asarray(labels))
    rows = [(X[b, :T], np.zeros((T, 1))) for b, T in enumerate((4, 4, 2))]
    assert_same(kfac_factors(factors)[0].W.A, kfac_by_definition(rows, "expand")[0])


def test_a_language_model_of_padded_ids():
    """Any ids in the padding, those of no row too; a projection is the same as logits."""
    config = LstmLanguageModelConfig(vocabulary=5, width=3, layers=1)
    heads = ("logits", hg.softmax_cross_entropy), ("projection", hg.linear_cross_entropy)
    ways = [
        (hg.chain(lstm_language_model(dataclasses.replace(config, head=head)), only_X()), loss(ignore_index=-1))
        for head, loss in heads
    ]
    params = drawn(ways[0][0], Sequences(jnp.asarray(IDS), LENGTHS))

    @jax.jit
    def run(ids):
        outcomes = []
        for way in ways:
            losses, factors = hg.value_and_factors(*way)(params, Sequences(ids, LENGTHS), jnp.asarray(LABELS))
            outcomes.append((losses, hg.per_example_grads(factors), kfac_factors(factors)))
        return outcomes

    found, expected = (run(jnp.where(OWN, IDS, padding)) for padding in (-1, 3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert_same(found[1], found[0])
