"""Scatter: inner products with every kind of a table's shape, ids of every dtype, ids outside, and large tables."""

import jax
import jax.numpy as jnp
import numpy as np
from factors.table import ROWS, TABLE_ROWS, N, dots, jit, outer, relative_error, scatter

from handgrad.factors import PerExample, Scatter, Shared


def test_inner_products():
    """With every kind of the table's shape, from both sides."""
    names = "scatter-one-token", "scatter-repeated", "scatter-more-tokens-than-rows", "positions"
    rows = [ROWS[name] for name in names]
    rows += [scatter((5,)), scatter((8,)), ROWS["scatter-outside"], ROWS["positions"], outer(TABLE_ROWS, N, 7)]
    sides = [row.sides(seed) for seed, row in enumerate(rows)]

    @jit
    def run(sides):
        factors = [row.make(*given) for row, given in zip(rows, sides, strict=True)]
        gs = [row.gradients(given)[0] for row, given in zip(rows, sides, strict=True)]
        others = [*factors[4:], Shared((factors[4], factors[-1])), PerExample(gs[4])]
        hs = [*gs[4:], gs[4] + gs[-1], gs[4]]
        return [[(f.inner(other), other.inner(f)) for other in others] for f in factors[:4]], gs[:4], hs

    found, gs, hs = jax.device_get(run(sides))
    for pairs, g in zip(found, gs, strict=True):
        for pair, h in zip(pairs, hs, strict=True):
            for value in pair:
                assert relative_error(value, dots(g, h)) <= 1e-12


def test_an_inner_product_materializes_no_table():
    """A table of 10⁹ rows fits nowhere; 3 rows of it do."""
    rows = 10**9
    factor = Scatter(np.array([[7, rows - 1, 7], [1, 2, 3]]), np.ones((2, 3, 2), np.float32), rows)
    other = Scatter(np.array([[rows - 1], [rows]]), np.ones((2, 1, 2), np.float32), rows)
    norms, inner = jit(lambda factor, other: (factor.sq_norms(), factor.inner(other)))(factor, other)
    assert norms.tolist() == [4 * 2 + 2, 6]
    assert inner.tolist() == [2, 0]


def test_ids_of_every_integer_dtype():
    """The largest number of each dtype is no row, and doesn't become one by wrapping around."""
    dtypes = ["uint8", "int8", "uint16", "int64", "uint32", "uint64"]
    factors = [Scatter(np.array([[0, 2, np.iinfo(d).max]], d), np.ones((1, 3, 1)), 3) for d in dtypes]
    factors.append(Scatter(np.array([[3, 127, -1]], np.int8), np.ones((1, 3, 1)), 300))  # more rows than it can name
    *found, (large, _) = jit(lambda factors: [(f.sum(), f.sq_norms()) for f in factors])(factors)
    for total, sq_norms in found:
        assert total.tolist() == [[1], [0], [1]]
        assert sq_norms.tolist() == [2]
    assert np.flatnonzero(large).tolist() == [3, 127]


def test_what_an_id_outside_brings_is_dropped():
    """NaN too: it is left out, not multiplied with 0."""
    Delta = np.array([[[np.nan], [2.0]], [[np.inf], [3.0]]])
    factor = Scatter(np.array([[-1, 1], [5, 1]]), Delta, 5)
    others = factor, Scatter(None, np.ones((2, 2, 1)), 5), PerExample(np.ones((2, 5, 1)))

    @jit
    def folds(f, others):
        inner = [f.inner(other) for other in others]
        return inner, (f.sum(), f.sum(jnp.asarray([1.0, 2.0])), f.sq_norms(), f.second_moment(), f.touched())

    inner, (total, weighted, sq_norms, second_moment, (rows, G)) = folds(factor, others)
    assert np.isfinite(inner).all()
    assert rows.tolist() == [1, 5, 5, 5]
    assert G.tolist() == [[5], [0], [0], [0]]
    assert total.tolist() == [[0], [5], [0], [0], [0]]
    assert weighted.tolist() == [[0], [8], [0], [0], [0]]
    assert sq_norms.tolist() == [4, 9]
    assert second_moment.tolist() == [[0], [13], [0], [0], [0]]


def test_nothing_to_add():
    """No example, no token, or an example without tokens."""
    shapes = [(0, 3, 2), (2, 0, 2), (0, 2)]
    factors = [Scatter(ids, np.ones(s), 4) for s in shapes for ids in (np.zeros(s[:-1], int), None)]
    found = jit(lambda factors: [(f.sum(), f.second_moment(), f.sq_norms()) for f in factors])(factors)
    for factor, (total, second_moment, sq_norms) in zip(factors, found, strict=True):
        assert total.tolist() == second_moment.tolist() == [[0, 0]] * 4
        assert sq_norms.tolist() == [0] * factor.batch


def test_folds_of_bfloat16_run_in_float32():
    ids, Delta = np.zeros((1, 1000), int), np.ones((1, 1000, 1), jnp.bfloat16)
    folds = jit(lambda f: (f.sq_norms(), f.per_example(), f.second_moment(), f.inner(f)))(Scatter(ids, Delta, 2000))
    assert all(fold.dtype == jnp.float32 for fold in folds)
    assert folds[0].tolist() == [1e6]


def test_a_squared_norm_is_never_negative():
    """Where two δ's of a row cancel but for rounding."""
    Delta = np.random.default_rng(0).standard_normal((50, 1, 8)).astype(np.float32)
    Delta = np.concatenate([Delta, -Delta * np.float32(1 + 1e-7), Delta, -Delta], axis=1)
    assert (np.asarray(jax.jit(Scatter.sq_norms)(Scatter(np.zeros((50, 4), int), Delta, 9))) >= 0).all()
