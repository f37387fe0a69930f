"""Tables: what ids outside of them do, equal forms, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
TABLE = jnp.asarray(RNG.standard_normal((5, 3)))
IDS = jnp.asarray([[0, 4, 4], [2, 0, 2]])
DY = jnp.asarray(RNG.standard_normal((2, 3, 3)))


@pytest.mark.parametrize("bad", [5, 100, -1, -5, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
def test_an_id_outside_the_table(bad):
    """It reads NaN and gets no gradient, a negative one too; the other tokens don't notice."""

    @jax.jit
    def both(ids):
        Y, residuals = rules.embedding_forward(ids, TABLE)
        return Y, rules.embedding_backward(residuals, jnp.where(jnp.isnan(Y), jnp.nan, DY))[1].sum()

    (Y, dtable), (expected, _) = both(IDS.at[0, 1].set(bad)), both(IDS)
    assert jnp.isnan(Y[0, 1]).all()
    assert (Y.at[0, 1].set(expected[0, 1]) == expected).all()
    by_token = jnp.zeros_like(TABLE).at[IDS].add(DY.at[0, 1].set(0))
    assert_same(dtable, by_token)


def test_outside_the_table_is_jnp_takes_fill():
    """But for negative ids, which jnp.take counts from the end."""
    ids = IDS.at[1, 1].set(7)
    np.testing.assert_array_equal(
        rules.embedding_forward(ids, TABLE)[0], jnp.take(TABLE, ids, axis=0, mode="fill", fill_value=jnp.nan)
    )
    assert jnp.isnan(rules.embedding_forward(jnp.asarray([-1]), TABLE)[0]).all()
    assert jnp.isfinite(jnp.take(TABLE, jnp.asarray([-1]), axis=0, mode="fill")).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "uint32", "uint64"])
def test_ids_of_every_integer_dtype(dtype):
    """The largest number of each dtype is no row, and doesn't become one by wrapping round."""
    ids = np.array([0, 4, np.iinfo(dtype).max], dtype)
    Y, residuals = rules.embedding_forward(ids, TABLE)
    assert (Y[:2] == TABLE[np.array([0, 4])]).all()
    assert jnp.isnan(Y[2]).all()
    dtable = rules.embedding_backward(residuals, jnp.ones((3, 3)))[1]
    assert dtable.sum()[:, 0].tolist() == [1, 0, 0, 0, 1]


def test_more_rows_than_the_ids_dtype_can_name():
    table = jnp.asarray(RNG.standard_normal((300, 2)))
    assert (rules.embedding_forward(jnp.asarray([127], jnp.int8), table)[0] == table[127:128]).all()
    assert (rules.embedding_forward(jnp.asarray([255], jnp.uint8), table)[0] == table[255:256]).all()


def test_embedding_is_a_linear_of_one_hot_rows():
    """Value, sum and per-example norms are linear's, without the one-hot rows."""
    Y, residuals = rules.embedding_forward(IDS, TABLE)
    dtable = rules.embedding_backward(residuals, DY)[1]
    expected, residuals = rules.linear_forward(jax.nn.one_hot(IDS, 5, dtype=float), TABLE)
    dW = rules.linear_backward(residuals, DY)[1]
    assert_same(Y, expected)
    assert_same((dtable.sum(), dtable.sq_norms()), (dW.sum(), dW.sq_norms()))
    assert_same((dtable.inner(dW), dW.inner(dtable)), (dW.sq_norms(),) * 2)


def test_positions_are_an_embedding_of_0_1_2():
    X = jnp.asarray(RNG.standard_normal((2, 3, 3)))
    Y, residuals = rules.position_embedding_forward(X, TABLE)
    dX, dtable = rules.position_embedding_backward(residuals, DY)
    ids = jnp.broadcast_to(jnp.arange(3)[None], (2, 3))
    rows, residuals = rules.embedding_forward(ids, TABLE)
    expected = rules.embedding_backward(residuals, DY)[1]
    assert (dX == DY).all()
    assert_same(Y, X + rows)
    folds = [(d.sum(), d.sq_norms(), d.second_moment(), d.inner(expected)) for d in (dtable, expected)]
    assert_same(*folds)


def test_positions_keep_no_numbers():
    X = jnp.ones((2, 3, 3))
    _, residuals = rules.position_embedding_forward(X, TABLE)
    assert residuals.X.size == 0
    assert residuals.table is TABLE


def test_tied_head_is_a_linear_with_the_table_turned():
    X = jnp.asarray(RNG.standard_normal((2, 4, 3)))
    dY = jnp.asarray(RNG.standard_normal((2, 4, 5)))
    Y, residuals = rules.tied_head_forward(X, TABLE)
    dX, dtable = rules.tied_head_backward(residuals, dY)
    expected, residuals = rules.linear_forward(X, TABLE.T)
    expected_dX, dW, _ = rules.linear_backward(residuals, dY)
    assert_same((Y, dX, dtable.sum().T, dtable.sq_norms()), (expected, expected_dX, dW.sum(), dW.sq_norms()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_mixed_dtypes(dtype):
    """Outputs in the promoted dtype, cotangents in each argument's own."""
    X, table = jnp.ones((2, 3, 3), dtype), TABLE.astype(jnp.float32)
    for forward, backward in (
        (rules.position_embedding_forward, rules.position_embedding_backward),
        (rules.tied_head_forward, rules.tied_head_backward),
    ):
        for x, t in ((X, table), (X.astype(jnp.float32), table.astype(dtype))):
            Y, residuals = forward(x, t)
            dX, dtable = backward(residuals, Y)
            assert (Y.dtype, dX.dtype, dtable.dtype, dtable.sum().dtype) == (jnp.float32, x.dtype, t.dtype, t.dtype)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: rules.embedding_forward(jnp.ones((2, 3)), TABLE),
            r"embedding_forward: ids must be integers of shape \(batch, \.\.\.\), got float64 \(2, 3\)",
        ),
        (
            lambda: rules.embedding_forward(jnp.ones((2,), bool), TABLE),
            r"embedding_forward: ids must be integers of shape \(batch, \.\.\.\), got bool \(2,\)",
        ),
        (
            lambda: rules.embedding_forward([1, 2], TABLE),
            r"embedding_forward: ids must be integers of shape \(batch, \.\.\.\), got list",
        ),
        (
            lambda: rules.embedding_forward(jnp.int32(1), TABLE),
            r"embedding_forward: ids must be integers of shape \(batch, \.\.\.\), got int32 \(\)",
        ),
        (
            lambda: rules.embedding_forward(IDS, TABLE[0]),
            r"embedding_forward: table must have shape \(rows, n\), got float64 \(3,\)",
        ),
        (
            lambda: rules.embedding_forward(IDS, jnp.ones((0, 3))),
            r"embedding_forward: table must have shape \(rows, n\), got float64 \(0, 3\)",
        ),
        (
            lambda: rules.position_embedding_forward(jnp.ones((2, 6, 3)), TABLE),
            r"position_embedding_forward: X must have at most 5 tokens, the table's rows, got float64 \(2, 6, 3\)",
        ),
        (
            lambda: rules.position_embedding_forward(jnp.ones((2, 3)), TABLE),
            r"position_embedding_forward: X must have shape \(batch, tokens, n\), got float64 \(2, 3\)",
        ),
        (
            lambda: rules.position_embedding_forward(jnp.ones((2, 3, 1)), TABLE),
            r"position_embedding_forward: X must have shape \(2, 3, 3\) to meet the table .*, got float64 \(2, 3, 1\)",
        ),
        (
            lambda: rules.tied_head_forward(jnp.ones((2, 5)), TABLE),
            r"tied_head_forward: X must have shape \(2, 3\) to meet the table \(5, 3\), got float64 \(2, 5\)",
        ),
        (
            lambda: rules.tied_head_forward(jnp.ones((2, 3)), TABLE.astype(int)),
            r"tied_head_forward: table must have a floating-point dtype, got int64 \(5, 3\)",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(hg.InputError, match=f"^{sentence}$"):
        call()
    with pytest.raises(hg.InputError, match=f"^{sentence}"):
        jax.eval_shape(call)
