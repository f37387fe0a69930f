"""Tables as layers: what init makes, where they stand, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, check_right

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
IDS = jnp.asarray([[0, 4, 4], [2, 0, 2]])
X = jnp.asarray(RNG.standard_normal((2, 3, 4)))
TARGET = jnp.asarray(RNG.standard_normal((2, 3, 2)))
WEIGHTS = jnp.asarray([0.5, -2.0])


def test_init():
    params = layers.embedding(5, 4).init(KEY, IDS)
    assert (type(params), params.table.shape, params.table.dtype) == (layers.EmbeddingParams, (5, 4), np.float64)
    assert 0 < np.std(params.table) < 0.04
    ones = jax.nn.initializers.ones
    low = jax.eval_shape(layers.embedding(5, 4, dtype=jnp.bfloat16).init, KEY, IDS)
    assert low.table.dtype == jnp.bfloat16
    for layer, rows in ((layers.position_embedding(7, init_table=ones), 7), (layers.tied_head(6, init_table=ones), 6)):
        table = layer.init(KEY, jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)).table
        assert (table.shape, table.dtype) == ((rows, 4), jnp.float32)
        assert (np.asarray(table) == 1).all()


def drawn(model, x):
    """Parameters of the model, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(model.init, KEY, x))


def test_a_chain_from_ids():
    """embedding, positions, a body and a head of its own, against jax.grad of the objective; dx is None."""
    model = hg.chain(
        read=layers.embedding(5, 4),
        positions=layers.position_embedding(6),
        body=hg.residual(hg.chain(hg.linear(4), hg.tanh())),
        head=layers.tied_head(2),
    )

    @jax.jit
    def both(params):
        autodiff = jax.value_and_grad(hg.objective(model, hg.squared_error()))
        value, (grads, dx) = hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1))(params, IDS, TARGET, WEIGHTS)
        assert dx is None
        return (value, grads), autodiff(params, IDS, TARGET, WEIGHTS)

    found, expected = both(drawn(model, IDS))
    assert_same(found, expected)
    assert found[1]["positions"].table.shape == (6, 4)
    assert (np.asarray(found[1]["positions"].table)[3:] == 0).all()


def test_custom_vjp():
    """Inside somebody else's program."""
    model = hg.chain(layers.embedding(5, 4), layers.position_embedding(3))

    @jax.jit
    def both(params):
        functions = hg.custom_vjp(model), lambda params, ids: model.forward(params, ids)[0]
        return [jax.grad(lambda params, f=f: jnp.sum(jnp.sin(f(params, IDS))))(params) for f in functions]

    assert_same(*both(drawn(model, IDS)))


def test_repeated_positions():
    """Places are learned anew in front of each of three layers."""
    model = hg.repeat(hg.chain(layers.position_embedding(5), hg.tanh()), 3)
    target = np.zeros(X.shape)

    @jax.jit
    def both(params):
        autodiff = jax.grad(hg.objective(model, hg.squared_error()))
        return hg.grad(model, hg.squared_error())(params, X, target, WEIGHTS), autodiff(params, X, target, WEIGHTS)

    found, expected = both(drawn(model, X))
    assert found[0].table.shape == (3, 5, 4)
    assert_same(found, expected)


def test_the_checker_takes_ids():
    check_right(hg.check_layer(layers.embedding(5, 2), IDS, control=False))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layers.embedding(0, 4), "embedding: rows must be a positive integer, got 0"),
        (lambda: layers.embedding(5, 2.0), "embedding: n must be a positive integer, got 2.0"),
        (lambda: layers.position_embedding(-1), "position_embedding: max_tokens must be a positive integer, got -1"),
        (lambda: layers.tied_head(True), "tied_head: rows must be a positive integer, got True"),
        (
            lambda: layers.embedding(5, 4).forward(hg.LinearParams(X), IDS),
            "embedding: params must be EmbeddingParams, got LinearParams",
        ),
        (
            lambda: layers.embedding(5, 4).forward(layers.EmbeddingParams(jnp.ones((4, 5))), IDS),
            r"embedding: params.table must have shape \(5, 4\) \(rows, n\), got float64 \(4, 5\)",
        ),
        (
            lambda: layers.position_embedding(2).forward(layers.EmbeddingParams(jnp.ones((2, 4))), X),
            r"position_embedding_forward: X must have at most 2 tokens, the table's rows, got float64 \(2, 3, 4\)",
        ),
        (
            lambda: layers.tied_head(2).init(KEY, IDS),
            r"tied_head: x must have a floating-point dtype, got int64 \(2, 3\)",
        ),
        (
            lambda: hg.chain(hg.tanh(), layers.embedding(5, 4)).forward(
                ((), layers.EmbeddingParams(jnp.ones((5, 4)))), X
            ),
            r"in layer 1: embedding_forward: ids must be integers of shape \(batch, \.\.\.\), got float64 \(2, 3, 4\)",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(hg.InputError, match=f"^{sentence}$"):
        call()
