"""tied_embedding: one table at both ends. How parameters are shared is tests/layers/structure/test_shared.py's."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_gradients, drawn, noise

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
IDS, LABELS = jnp.asarray([[0, 4, 4], [2, 0, 2], [1, 1, 1]]), jnp.asarray([[4, 4, 2], [0, 2, 2], [1, 1, 0]])
WEIGHTS = jnp.asarray([0.5, 1.0, 2.0])
LOSS = hg.softmax_cross_entropy()
MODEL = layers.tied_embedding(
    5, 4, hg.chain(layers.position_embedding(6), hg.residual(hg.chain(hg.linear(4), hg.tanh())), noise()), dtype=float
)


PARAMS = drawn(MODEL, IDS)


def reference(params, ids):
    """The language model in plain jax.numpy: ids to logits."""
    positions, ((W, b), _), _ = params["body"]
    table = params["embedding"].table
    x = table[ids] + positions.table[None, : ids.shape[1]]
    x = x + jnp.tanh(x @ W + b[None, None])
    return jnp.einsum("btn,rn->btr", x, table)


def reference_losses(params, ids, labels):
    of_labels = jnp.take_along_axis(jax.nn.log_softmax(reference(params, ids)), labels[..., None], axis=-1)
    return -jnp.sum(of_labels, axis=(1, 2))


def test_logits_gradients_and_norms():
    """Against plain jax.numpy and jax.grad, one example at a time too: the cross terms of both uses are in the norms.
    And the body gets the key."""

    @jax.jit
    def everything(params):
        (value, logits), grads = hg.value_and_grad(MODEL, LOSS, has_aux=True)(params, IDS, LABELS, WEIGHTS)
        plain = jax.value_and_grad(lambda params: WEIGHTS @ reference_losses(params, IDS, LABELS))(params)
        _, factors = hg.value_and_factors(MODEL, LOSS)(params, IDS, LABELS)
        shared = factors["embedding"].table
        assert isinstance(shared, hg.factors.Shared)
        assert [type(site).__name__ for site in shared.sites] == ["Scatter", "Outer"]
        one = jax.grad(lambda params, ids, labels: reference_losses(params, ids[None], labels[None])[0])
        g = jax.vmap(one, (None, 0, 0))(params, IDS, LABELS)["embedding"].table
        found = logits, (value, grads), shared.per_example(), shared.sq_norms()
        expected = reference(params, IDS), plain, g, jnp.einsum("brn,brn->b", g, g)
        with_key = both_gradients(MODEL, LOSS, 0)(params, IDS, LABELS, WEIGHTS, KEY)
        return found, expected, sum(site.sq_norms() for site in shared.sites), with_key

    found, expected, apart, with_key = everything(PARAMS)
    assert_same(found, expected)
    assert_same(*with_key)
    assert (np.abs(np.asarray(apart) - expected[-1]) > 1e-3 * np.asarray(expected[-1])).all()
    assert (np.abs(np.asarray(with_key[0][1]["embedding"].table) - expected[1][1]["embedding"].table) > 0).any()


def test_init():
    params = jax.eval_shape(MODEL.init, KEY, IDS)
    assert list(params) == ["body", "embedding", "head"]
    (positions, (linear, _), _), embedding, head = params.values()
    assert (embedding.table.shape, positions.table.shape, linear.W.shape) == ((5, 4), (6, 4), (4, 4))
    assert head == ()
    low = jax.eval_shape(layers.tied_embedding(5, 4, hg.linear(4), dtype=jnp.bfloat16).init, KEY, IDS)
    assert {p.dtype for p in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}


def test_the_table_is_kept_once():
    def run(params):
        _, residuals = MODEL.forward(params, IDS)
        assert residuals[0].table is residuals[2].table is params["embedding"].table

    jax.eval_shape(run, PARAMS)


def test_refusals():
    """Others are those of chain, shared and the rules."""
    wide = layers.tied_embedding(5, 4, hg.linear(3))
    params = PARAMS | {"body": drawn(hg.linear(3), np.ones((3, 4)))}
    tokens = r"must have at most 6 tokens, .*, got float64 \(1, 9, 4\)"
    ids = r"must be integers .*, got float64 \(5, 4\)"
    shape = r"must have the shape of params.embedding.table, \(5, 4\), got \(5, 3\)"
    meet = r"must have shape \(3, 3, 4\) to meet the table \(5, 4\), got .*"
    rows = {
        "tied_embedding: n must be a positive integer, got 0": lambda: layers.tied_embedding(5, 0, hg.tanh()),
        "tied_embedding: expected a Layer, as .*, got function": lambda: layers.tied_embedding(5, 4, hg.tanh),
        f"in layer body.0: position_embedding_forward: X {tokens}": lambda: MODEL.init(KEY, jnp.zeros((1, 9), int)),
        f"in layer embedding: embedding_forward: ids {ids}": lambda: MODEL.forward(PARAMS, PARAMS["embedding"].table),
        f"shared: params.head.table {shape}": lambda: wide.init(KEY, IDS),
        f"in layer head: tied_head_forward: X {meet}": lambda: wide.forward(params, IDS),
    }
    assert_refused(rows)
