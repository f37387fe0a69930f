"""Tables: what ids outside of them do, equal forms, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((5, 3))
IDS = np.array([[0, 4, 4], [2, 0, 2]])
DY = RNG.standard_normal((2, 3, 3))


def test_an_id_outside_the_table():
    """It reads NaN and gets no gradient, a negative one too; the other tokens don't notice. As jnp.take's "fill", but
    for negative ids, which jnp.take counts from the end."""

    @jax.jit
    def run(ids):
        Y, residuals = rules.embedding_forward(ids, TABLE)
        dtable = rules.embedding_backward(residuals, jnp.where(jnp.isnan(Y), jnp.nan, DY))[1].sum()
        return Y, dtable, jnp.take(TABLE, ids, axis=0, mode="fill", fill_value=jnp.nan)

    expected = np.asarray(run(IDS)[0])
    for bad in (5, 100, -1, -5, np.iinfo(np.int32).max, np.iinfo(np.int32).min):
        ids = IDS.copy()
        ids[0, 1] = bad
        Y, dtable, taken = (np.array(a) for a in run(ids))
        assert np.isnan(Y[0, 1]).all()
        if bad >= 0:
            np.testing.assert_array_equal(Y, taken)
        Y[0, 1] = expected[0, 1]
        assert (expected == Y).all()
        by_token = np.zeros_like(TABLE)
        np.add.at(by_token, IDS, np.where((np.arange(6).reshape(2, 3, 1) == 1), 0, DY))
        assert_same(dtable, by_token)


def test_ids_of_every_integer_dtype():
    """The largest number of each dtype is no row, and doesn't become one by wrapping round."""
    dtypes = "uint8", "int8", "uint16", "int64", "uint32", "uint64"
    many = RNG.standard_normal((300, 2))

    @jax.jit
    def run(every, in_int8, in_uint8):
        found = [passes(rules.embedding, np.ones((3, 3)), ids, TABLE) for ids in every]
        return found, [rules.embedding_forward(ids, many)[0] for ids in (in_int8, in_uint8)]

    every = [np.array([0, 4, np.iinfo(dtype).max], dtype) for dtype in dtypes]
    found, (of_int8, of_uint8) = run(every, np.array([127], np.int8), np.array([255], np.uint8))
    for Y, (_, dtable) in found:
        assert (np.asarray(Y[:2]) == TABLE[[0, 4]]).all()
        assert np.isnan(Y[2]).all()
        assert np.asarray(dtable)[:, 0].tolist() == [1, 0, 0, 0, 1]
    assert (np.asarray(of_int8) == many[127:128]).all()  # more rows than the ids' dtype can name
    assert (np.asarray(of_uint8) == many[255:256]).all()


def test_tables_are_linears():
    """An embedding is a linear of one-hot rows, without these; positions are an embedding of 0, 1, 2 …; a tied head is
    a linear with the table transposed. Sums, per-example norms and products of the tables' factors."""
    X, dlogits = RNG.standard_normal((2, 4, 3)), RNG.standard_normal((2, 4, 5))

    def factor(rule, dY, *arguments):
        return rule.backward(rule.forward(*arguments)[1], dY)[1]

    @jax.jit
    def both(ids, table, dY, X, dlogits):
        of_ids, of_rows = (factor(rules.embedding, dY, some, table) for some in (ids, np.tile(np.arange(3), (2, 1))))
        of_one_hot = factor(rules.linear, dY, jax.nn.one_hot(ids, 5, dtype=float), table)
        of_positions = factor(rules.position_embedding, dY, X[:, :3], table)
        of_head, of_linear = factor(rules.tied_head, dlogits, X, table), factor(rules.linear, dlogits, X, table.T)
        found, expected = [], []
        for one, other in ((of_ids, of_one_hot), (of_positions, of_rows)):
            found.append((one.sum(), one.sq_norms(), one.second_moment(), one.inner(other), other.inner(one)))
            expected.append((other.sum(), other.sq_norms(), other.second_moment(), *[other.sq_norms()] * 2))
        found.append((of_head.sum().T, of_head.sq_norms()))
        expected.append((of_linear.sum(), of_linear.sq_norms()))
        return found, expected

    assert_same(*both(IDS, TABLE, DY, X, dlogits))


def test_folds_without_the_padding_row():
    """Those of the factor of the tokens that are none; the row may even be NaN."""

    @jax.jit
    def both(dY):
        factors, of_padding = [], np.expand_dims(IDS == 4, -1)
        for options, instead in (({"padding_idx": 4}, jnp.nan), ({}, 0)):
            residuals = rules.embedding_forward(IDS, TABLE, **options)[1]
            given = jnp.where(of_padding, instead, dY)
            factors.append(rules.embedding_backward(residuals, given, **options)[1])
        return [(f.sum(), f.sq_norms(), f.second_moment(), f.gram(), f.per_example()) for f in factors]

    assert_same(*both(DY))


def test_positions_keep_no_numbers():
    residuals = jax.eval_shape(rules.position_embedding_forward, np.ones((2, 3, 3)), TABLE)[1]
    assert residuals.X.size == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_mixed_dtypes(dtype):
    """Outputs in the promoted dtype, cotangents in each argument's own."""
    for rule, dY in ((rules.position_embedding, (2, 3, 3)), (rules.tied_head, (2, 3, 5))):
        for of_x, of_table in ((dtype, "float32"), ("float32", dtype)):
            given = [((2, 3, 3), of_x), ((5, 3), of_table)]
            arguments = [jax.ShapeDtypeStruct(*of) for of in ((dY, "float32"), *given)]
            Y, (dX, dtable, *_) = jax.eval_shape(functools.partial(passes, rule), *arguments)
            assert (Y.dtype, dX.dtype, dtable.dtype) == ("float32", of_x, of_table)


def test_bad_input():
    every = rules.embedding, rules.position_embedding, rules.tied_head
    read, add, head = (functools.partial(refuses, rule) for rule in every)
    for ids, got in (
        (np.ones((2, 3)), "float64 (2, 3)"),
        (np.ones(2, bool), "bool (2,)"),
        ([1, 2], "list"),
        (np.int32(1), "int32 ()"),
    ):
        read(f"ids must be integers of shape (batch, ...), got {got}", ids, TABLE)
    read("table must have shape (rows, n), got float64 (3,)", IDS, TABLE[0])
    read("table must have shape (rows, n), got float64 (0, 3)", IDS, np.ones((0, 3)))
    for wrong in (5, -1, 1.0, True):
        read(f"padding_idx must be None or one of 0 … 4, got {wrong}", IDS, TABLE, padding_idx=wrong)
    add("X must have at most 5 tokens, the table's rows, got float64 (2, 6, 3)", np.ones((2, 6, 3)), TABLE)
    add("X must have shape (batch, tokens, n), got float64 (2, 3)", np.ones((2, 3)), TABLE)
    add("X must have shape (2, 3, 3) to meet the table …, got float64 (2, 3, 1)", np.ones((2, 3, 1)), TABLE)
    three = np.ones((2, 3, 3))
    add("positions must be integers, got float64 (2, 3)", three, TABLE, np.ones((2, 3)))
    add("positions must have shape (2, 3) (one for each token), got int64 (3,)", three, TABLE, np.arange(3))
    head("X must have shape (2, 3) to meet the table (5, 3), got float64 (2, 5)", np.ones((2, 5)), TABLE)
    head("table must have a floating-point dtype, got int64 (5, 3)", np.ones((2, 3)), TABLE.astype(int))
