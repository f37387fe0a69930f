"""tied_embedding: one table at both ends, its gradient, its norms, its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, check_right, noise

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IDS = jnp.asarray([[0, 4, 4], [2, 0, 2], [1, 1, 1]])
LABELS = jnp.asarray([[4, 4, 2], [0, 2, 2], [1, 1, 0]])
WEIGHTS = jnp.asarray([0.5, 1.0, 2.0])
LOSS = hg.softmax_cross_entropy()
MODEL = layers.tied_embedding(
    5, 4, hg.chain(layers.position_embedding(6), hg.residual(hg.chain(hg.linear(4), hg.tanh()))), dtype=float
)
PARAMS = jax.tree.map(
    lambda p: jnp.asarray(RNG.standard_normal(p.shape)), jax.eval_shape(lambda key: MODEL.init(key, IDS), KEY)
)


def reference(params, ids):
    """The language model in plain jax.numpy: ids to logits."""
    positions, ((W, b), _) = params.body
    x = params.table[ids] + positions.table[None, : ids.shape[1]]
    x = x + jnp.tanh(x @ W + b[None, None])
    return jnp.einsum("btn,rn->btr", x, params.table)


def reference_losses(params, ids, labels):
    of_labels = jnp.take_along_axis(jax.nn.log_softmax(reference(params, ids)), labels[..., None], axis=-1)
    return -jnp.sum(of_labels, axis=(1, 2))


def test_logits_and_gradient():
    @jax.jit
    def three_ways(params):
        (value, logits), grads = hg.value_and_grad(MODEL, LOSS, has_aux=True)(params, IDS, LABELS, WEIGHTS)
        plain = jax.value_and_grad(lambda params: WEIGHTS @ reference_losses(params, IDS, LABELS))(params)
        autodiff = jax.value_and_grad(hg.objective(MODEL, LOSS))(params, IDS, LABELS, WEIGHTS)
        return (value, grads), plain, autodiff, (logits, reference(params, IDS))

    by_hand, plain, autodiff, logits = three_ways(PARAMS)
    assert_same(*logits)
    assert_same(by_hand, plain)
    assert_same(by_hand, autodiff)


def test_every_examples_gradient_counts_both_sites():
    """Shared's norms, against jax.grad one example at a time: the sites' cross terms are in them."""

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(MODEL, LOSS)(params, IDS, LABELS)
        shared = factors.table
        assert isinstance(shared, hg.Shared)
        assert [type(site).__name__ for site in shared.sites] == ["Scatter", "Outer"]
        one = jax.grad(lambda params, ids, labels: reference_losses(params, ids[None], labels[None])[0])
        g = jax.vmap(one, (None, 0, 0))(params, IDS, LABELS).table
        apart = sum(site.sq_norms() for site in shared.sites)
        return (shared.per_example(), shared.sq_norms()), (g, jnp.einsum("brn,brn->b", g, g)), apart

    found, (g, squares), apart = both(PARAMS)
    assert_same(found, (g, squares))
    assert (np.abs(np.asarray(apart) - squares) > 1e-3 * np.asarray(squares)).all()


def test_init():
    params = jax.eval_shape(MODEL.init, KEY, IDS)
    assert type(params) is layers.TiedEmbeddingParams
    assert params.table.shape == (5, 4)
    assert params.body[0].table.shape == (6, 4)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    assert paths == ["table", "body.0.table", "body.1.0.W", "body.1.0.b"]
    low = jax.eval_shape(layers.tied_embedding(5, 4, hg.linear(4), dtype=jnp.bfloat16).init, KEY, IDS)
    assert {p.dtype for p in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}


def test_the_table_is_kept_once():
    _, residuals = MODEL.forward(PARAMS, IDS)
    assert residuals.embedding.table is PARAMS.table
    assert residuals.head.table is PARAMS.table


def test_the_body_gets_the_key():
    model = layers.tied_embedding(5, 4, noise())

    @jax.jit
    def run(params):
        gradients = hg.grad(model, LOSS), jax.grad(hg.objective(model, LOSS))
        outputs = [model.forward(params, IDS, key)[0] for key in (KEY, None)]
        return [gradient(params, IDS, LABELS, WEIGHTS, KEY) for gradient in gradients], outputs

    gradients, (noisy, without) = run(layers.TiedEmbeddingParams(PARAMS.table, ()))
    assert_same(*gradients)
    assert (np.asarray(noisy) != without).any()


def test_the_checker_takes_it():
    check_right(hg.check_model(MODEL, LOSS, PARAMS, IDS, LABELS))


def broken(layer):
    return hg.Layer(layer.init, layer.forward, lambda kept, dy: jax.tree.map(lambda d: 2 * d, layer.backward(kept, dy)))


def test_the_checker_finds_the_wrong_layer_inside():
    model = layers.tied_embedding(5, 4, hg.chain(hg.linear(4), broken(hg.tanh())))
    params = layers.TiedEmbeddingParams(PARAMS.table, (PARAMS.body[1][0], ()))
    report = hg.check_model(model, LOSS, params, IDS, LABELS)
    assert report.verdict == "FAIL"
    assert report.reason.startswith("the first wrong layer, from the loss backwards, is body.1;")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layers.tied_embedding(5, 0, hg.tanh()), "tied_embedding: n must be a positive integer, got 0"),
        (lambda: layers.tied_embedding(5, 4, hg.tanh), "tied_embedding: expected a Layer, as .*, got function"),
        (
            lambda: MODEL.forward((PARAMS.table, PARAMS.body), IDS),
            "tied_embedding: params must be TiedEmbeddingParams, got tuple",
        ),
        (lambda: MODEL.backward((), IDS), "tied_embedding: residuals must be TiedEmbeddingResiduals, got tuple"),
        (
            lambda: MODEL.forward(PARAMS, jnp.zeros((1, 9), int)),
            r"in layer body.0: position_embedding_forward: X must have at most 6 tokens, .*, got float64 \(1, 9, 4\)",
        ),
        (
            lambda: MODEL.init(KEY, jnp.zeros((1, 9), int)),
            r"in layer body.0: position_embedding_forward: X must have at most 6 tokens, .*, got float64 \(1, 9, 4\)",
        ),
        (
            lambda: layers.tied_embedding(5, 4, hg.identity()).forward(
                layers.TiedEmbeddingParams(PARAMS.table, ()), PARAMS.table
            ),
            r"in layer embedding: embedding_forward: ids must be integers .*, got float64 \(5, 4\)",
        ),
        (
            lambda: layers.tied_embedding(5, 4, hg.linear(3)).forward(
                layers.TiedEmbeddingParams(PARAMS.table, hg.LinearParams(jnp.ones((4, 3)), jnp.ones(3))), IDS
            ),
            r"in layer head: tied_head_forward: X must have shape \(3, 3, 4\) to meet the table \(5, 4\), got .*",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(hg.InputError, match=f"^{sentence}(\n|$)"):
        call()
