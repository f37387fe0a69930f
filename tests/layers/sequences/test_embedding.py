"""Tables as layers: what init makes, where they stand, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_gradients, check_right, drawn

import handgrad as hg
from handgrad.layers import EmbeddingParams, embedding, position_embedding, tied_head

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
IDS = jnp.asarray([[0, 4, 4], [2, 0, 2]])
X, TARGET = (jax.device_put(RNG.standard_normal(shape)) for shape in ((2, 3, 4), (2, 3, 2)))
WEIGHTS = jnp.asarray([0.5, -2.0])
LOSS = hg.squared_error()


def test_init():
    params = embedding(5, 4).init(KEY, IDS)
    assert (type(params), params.table.shape, params.table.dtype) == (EmbeddingParams, (5, 4), np.float64)
    assert 0 < np.std(params.table) < 0.04
    padded = np.asarray(embedding(5, 4, padding_idx=2).init(KEY, IDS).table)
    assert (np.asarray(params.table) == padded).all(1).tolist() == [True, True, False, True, True]
    assert not padded[2].any()
    ones = jax.nn.initializers.ones
    low = jax.eval_shape(embedding(5, 4, dtype=jnp.bfloat16).init, KEY, IDS)
    assert low.table.dtype == jnp.bfloat16
    for layer, rows in ((position_embedding(7, init_table=ones), 7), (tied_head(6, init_table=ones), 6)):
        table = layer.init(KEY, jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)).table
        assert (table.shape, table.dtype) == ((rows, 4), jnp.float32)
        assert (np.asarray(table) == 1).all()


def test_a_chain_from_ids():
    """embedding, positions, a body and a head of its own, against jax.grad of the objective; dx is None."""
    body = hg.residual(hg.chain(hg.linear(4), hg.tanh()))
    model = hg.chain(read=embedding(5, 4), positions=position_embedding(6), body=body, head=tied_head(2))
    params = drawn(model, IDS)
    found, expected = both_gradients(model, LOSS, 0)(params, IDS, TARGET, WEIGHTS)
    assert_same(found, expected)
    assert (np.asarray(found[1]["positions"].table)[3:] == 0).all()
    assert jax.eval_shape(hg.grad(model, LOSS, argnums=1), params, IDS, TARGET) is None


def test_custom_vjp():
    """Inside somebody else's program."""
    model = hg.chain(embedding(5, 4), position_embedding(3))

    @jax.jit
    def both(params):
        functions = hg.custom_vjp(model), lambda params, ids: model.forward(params, ids)[0]
        return [jax.grad(lambda params, f=f: jnp.sum(jnp.sin(f(params, IDS))))(params) for f in functions]

    assert_same(*both(drawn(model, IDS)))


def test_repeated_positions():
    """Places are learned anew in front of each of three layers."""
    model = hg.repeat(hg.chain(position_embedding(5), hg.tanh()), 3)
    found, expected = both_gradients(model, LOSS, 0)(drawn(model, X), X, np.zeros(X.shape), WEIGHTS)
    assert found[1][0].table.shape == (3, 5, 4)
    assert_same(found, expected)


def test_the_checker_takes_ids():
    check_right(hg.check_layer(embedding(5, 2), IDS, control=False))


def test_refusals():
    layer, five = embedding(5, 4), EmbeddingParams(jnp.ones((5, 4)))
    two, four = position_embedding(2), EmbeddingParams(jnp.ones((4, 5)))
    behind = hg.chain(hg.tanh(), layer)
    tokens = r"must have at most 2 tokens, the table's rows, got float64 \(2, 3, 4\)"
    ids = r"ids must be integers of shape \(batch, \.\.\.\), got float64 \(2, 3, 4\)"
    shape = r"must have shape \(5, 4\) \(rows, n\), got float64 \(4, 5\)"
    rows = {
        "embedding: rows must be a positive integer, got 0": lambda: embedding(0, 4),
        "embedding: n must be a positive integer, got 2.0": lambda: embedding(5, 2.0),
        "embedding: padding_idx must be None or one of 0 … 4, got 5": lambda: embedding(5, 2, padding_idx=5),
        "position_embedding: max_tokens must be a positive integer, got -1": lambda: position_embedding(-1),
        "tied_head: rows must be a positive integer, got True": lambda: tied_head(True),
        "embedding: params must be EmbeddingParams, got LinearParams": lambda: layer.forward(hg.LinearParams(X), IDS),
        f"embedding: params.table {shape}": lambda: layer.forward(four, IDS),
        f"position_embedding_forward: X {tokens}": lambda: two.forward(drawn(two, X[:, :2]), X),
        "position_embedding: x must be an array, or Tokens with positions, got Tokens without": (
            lambda: two.forward(drawn(two, X[:, :2]), hg.Tokens(X[:, :2]))
        ),
        r"tied_head: x must have a floating-point dtype, got int64 \(2, 3\)": lambda: tied_head(2).init(KEY, IDS),
        f"in layer 1: embedding_forward: {ids}": lambda: behind.forward(((), five), X),
    }
    assert_refused(rows)
