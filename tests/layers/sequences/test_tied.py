"""tied_embedding: one table at both ends. How parameters are shared is tests/layers/structure/test_shared.py's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import assert_refused, assert_same, both_gradients, drawn, noise

import handgrad as hg
from handgrad import layers
from handgrad.training import TrainState, two_phase_step

KEY = jax.random.key(0)
IDS, LABELS = jnp.asarray([[0, 4, 4], [2, 0, 2], [1, 1, 1]]), jnp.asarray([[4, 4, 2], [0, 2, 2], [1, 1, 0]])
WEIGHTS = jnp.asarray([0.5, 1.0, 2.0])
LOSS = hg.softmax_cross_entropy()
BODY = hg.chain(layers.position_embedding(6), hg.residual(hg.chain(hg.linear(4), hg.tanh())), noise())
MODEL = layers.tied_embedding(5, 4, BODY, dtype=float)


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


def test_a_head_that_leaves_its_product_to_the_loss():
    """Gradient and update, and every fold over examples, against plain jax.numpy and jax.grad: the table's gradient is
    the embedding's and a Recomputed one, in the table's shape."""
    model, loss = layers.tied_embedding(5, 4, BODY, dtype=float, head="projection"), hg.linear_cross_entropy(chunk=4)
    optimizer, clip = optax.sgd(0.1), 0.5

    @jax.jit
    def everything(params):
        by_hand = hg.value_and_grad(model, loss)(params, IDS, LABELS, WEIGHTS)
        state = TrainState(params, optimizer.init(params), jnp.zeros((), int))
        updated, _ = two_phase_step(model, loss, optimizer)(state, IDS, LABELS, WEIGHTS)
        losses, factors = hg.value_and_factors(model, loss)(params, IDS, LABELS)
        shared = factors["embedding"].table
        assert [type(site).__name__ for site in shared.sites] == ["Scatter", "Recomputed"]
        norms = hg.sq_norms(factors)
        folds = losses, norms, hg.per_example_grads(factors), hg.second_moment(factors), hg.gram(factors)
        sums = [hg.materialize(factors, w) for w in (None, WEIGHTS)]
        clipped = hg.clipped_grad(model, loss, l2_clip_norm=clip)(params, IDS, LABELS)

        expected = reference_losses(params, IDS, LABELS)
        one = jax.grad(lambda params, ids, labels: reference_losses(params, ids[None], labels[None])[0])
        g = jax.vmap(one, (None, 0, 0))(params, IDS, LABELS)
        flat = jnp.concatenate([leaf.reshape(3, -1) for leaf in jax.tree.leaves(g)], axis=1)

        def weighted(w):
            return jax.tree.map(lambda leaf: jnp.tensordot(w, leaf, 1), g)

        of_norms = jnp.sum(flat**2, axis=1)
        plain = expected, of_norms, g, jax.tree.map(lambda leaf: jnp.sum(leaf**2, axis=0), g), flat @ flat.T
        stepped = jax.tree.map(lambda p, d: p - 0.1 * d, params, weighted(WEIGHTS))
        both = (WEIGHTS @ expected, weighted(WEIGHTS)), stepped, [weighted(jnp.ones(3)), weighted(WEIGHTS)]
        kept = weighted(jnp.minimum(1, clip / jnp.sqrt(of_norms)))
        return (by_hand, updated.params, sums, folds, clipped), (*both, plain, kept)

    assert_same(*everything(PARAMS))
    key = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
    assert_same(*jax.jit(lambda key: [m.init(key, IDS) for m in (model, MODEL)])(key))


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
        "tied_embedding: head must be 'logits' or 'projection', got 'W'": lambda: layers.tied_embedding(
            5, 4, hg.tanh(), head="W"
        ),
        "tied_embedding: expected a Layer, as .*, got function": lambda: layers.tied_embedding(5, 4, hg.tanh),
        f"in layer body.0: position_embedding_forward: X {tokens}": lambda: MODEL.init(KEY, jnp.zeros((1, 9), int)),
        f"in layer embedding: embedding_forward: ids {ids}": lambda: MODEL.forward(PARAMS, PARAMS["embedding"].table),
        f"shared: params.head.table {shape}": lambda: wide.init(KEY, IDS),
        f"in layer head: tied_head_forward: X {meet}": lambda: wide.forward(params, IDS),
    }
    assert_refused(rows)
