"""Scatter: every fold against the gradients of each example that autodiff finds alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.factors import Scatter

BATCH, ROWS, N = 4, 6, 3
RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.5, -2.0, 0.0, 3.0])


def gradients(factor):
    """The oracle: (batch, rows, n), jax.grad of ⟨table[ids], Δ⟩ one example at a time, out-of-range ids left out."""
    if isinstance(factor, hg.Shared):
        return sum(gradients(site) for site in factor.sites)
    if isinstance(factor, hg.Outer):
        return of_outer(np.zeros(factor.shape), factor.A, factor.Delta)
    Delta = np.reshape(factor.Delta, (factor.batch, -1, factor.Delta.shape[-1]))
    ids = np.arange(Delta.shape[1])[None] + np.zeros((factor.batch, 1), int) if factor.ids is None else factor.ids
    ids = np.asarray(ids, np.int64).reshape(Delta.shape[:2])
    inside = (ids >= 0) & (ids < factor.rows)
    return of_scatter(np.zeros(factor.shape), np.where(inside, ids, 0), inside, Delta)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0))
@jax.grad
def of_scatter(table, ids, inside, Delta):
    return jnp.sum(jnp.where(inside[:, None], table[ids] * Delta, 0))


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
@jax.grad
def of_outer(W, A, Delta):
    return jnp.vdot(A @ W, Delta)


def scatter(ids, rows=ROWS, n=N, seed=0):
    ids = np.asarray(ids)
    return Scatter(jnp.asarray(ids), jnp.asarray(np.random.default_rng(seed).standard_normal((*ids.shape, n))), rows)


def drawn(*shape, rows=ROWS, seed=0):
    return scatter(np.random.default_rng(seed).integers(0, rows, shape), rows, seed=seed)


FACTORS = {
    "tokens": drawn(BATCH, 4),
    "one-token": drawn(BATCH),
    "image": drawn(BATCH, 2, 2),
    "repeated": scatter([[1, 1, 5], [5, 1, 5], [0, 0, 0], [3, 2, 1]]),
    "more-tokens-than-rows": drawn(BATCH, 9),
    "as-many-tokens-as-rows": drawn(BATCH, ROWS),
    "one-row": scatter(np.zeros((BATCH, 3), int), 1),
    "outside": scatter([[-1, 2, 6], [100, 2, 2], [-6, -7, 6], [2**31 - 1, -(2**31), 0]]),
    "outside-and-many": scatter([[-1, 2, 1], [3, 0, 0], [1, 2, -2], [0, 1, 2]], 3),
    "positions": Scatter(None, jnp.asarray(RNG.standard_normal((BATCH, 4, N))), ROWS),
    "all-positions": Scatter(None, jnp.asarray(RNG.standard_normal((BATCH, ROWS, N))), ROWS),
}
every_factor = pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS.keys())


def dots(g, h):
    return np.einsum("bri,bri->b", g, h)


@every_factor
def test_folds(factor):
    @jax.jit
    def folds(factor):
        return {
            "sum": factor.sum(),
            "weighted": factor.sum(jnp.asarray(WEIGHTS)),
            "per_example": factor.per_example(),
            "sq_norms": factor.sq_norms(),
            "gram": factor.gram(),
            "second_moment": factor.second_moment(),
            "example": factor.examples(2, 1).per_example(),
            "example_norm": factor.examples(2, 1).sq_norms(),
        }

    g = np.asarray(gradients(factor))
    expected = {
        "sum": g.sum(0),
        "weighted": np.tensordot(WEIGHTS, g, 1),
        "per_example": g,
        "sq_norms": dots(g, g),
        "gram": g.reshape(BATCH, -1) @ g.reshape(BATCH, -1).T,
        "second_moment": (g**2).sum(0),
        "example": g[2:3],
        "example_norm": dots(g, g)[2:3],
    }
    assert_same(folds(factor), expected)


def outer(tokens, seed):
    rng = np.random.default_rng(seed)
    return hg.Outer(*(jnp.asarray(rng.standard_normal((BATCH, tokens, k))) for k in (ROWS, N)))


@pytest.mark.parametrize("name", ["one-token", "repeated", "more-tokens-than-rows", "outside", "positions"])
def test_inner_products(name):
    """With every kind of the table's shape, from both sides."""
    factor = FACTORS[name]
    others = [drawn(BATCH, 5, seed=1), drawn(BATCH, 8, seed=2), FACTORS["outside"], FACTORS["positions"], outer(7, 3)]
    others.append(hg.Shared((others[0], outer(2, 4))))
    gs = [np.asarray(gradients(other)) for other in others]
    written_out = hg.PerExample(jnp.asarray(gs[0]))

    @jax.jit
    def inner(factor, others):
        return [(factor.inner(other), other.inner(factor)) for other in others]

    g = np.asarray(gradients(factor))
    assert_same(inner(factor, [*others, written_out]), [(dots(g, h),) * 2 for h in (*gs, gs[0])])


@pytest.mark.parametrize("tokens", [1, 4, 9])
def test_tied_weights(tokens):
    """Shared((Scatter, Outer)), in either order: the cross terms count."""
    read, head = drawn(BATCH, tokens), outer(tokens, 5)

    @jax.jit
    def folds(read, head):
        both = hg.Shared((read, head)), hg.Shared((head, read))
        return [(f.sum(jnp.asarray(WEIGHTS)), f.sq_norms(), f.second_moment(), f.inner(f)) for f in both]

    g = np.asarray(gradients(hg.Shared((read, head))))
    assert_same(folds(read, head), [(np.tensordot(WEIGHTS, g, 1), dots(g, g), (g**2).sum(0), dots(g, g))] * 2)


def test_an_inner_product_writes_no_table():
    """A table of 10⁹ rows fits nowhere; 3 rows of it do."""
    rows = 10**9
    ids = jnp.asarray([[7, rows - 1, 7], [1, 2, 3]])
    factor = Scatter(ids, jnp.ones((2, 3, 2), jnp.float32), rows)
    assert jax.jit(Scatter.sq_norms)(factor).tolist() == [4 * 2 + 2, 6]
    other = Scatter(jnp.asarray([[rows - 1], [rows]]), jnp.ones((2, 1, 2), jnp.float32), rows)
    assert jax.jit(Scatter.inner)(factor, other).tolist() == [2, 0]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "uint32", "uint64"])
def test_ids_of_every_integer_dtype(dtype):
    """The largest number of each dtype is no row, and doesn't become one by wrapping round."""
    ids = np.array([[0, 2, np.iinfo(dtype).max]], dtype)
    factor = Scatter(jnp.asarray(ids), jnp.ones((1, 3, 1)), 3)
    total, sq_norms = jax.jit(lambda f: (f.sum(), f.sq_norms()))(factor)
    assert total.tolist() == [[1], [0], [1]]
    assert sq_norms.tolist() == [2]


def test_more_rows_than_the_ids_dtype_can_name():
    factor = Scatter(jnp.asarray([[3, 127, -1]], jnp.int8), jnp.ones((1, 3, 1)), 300)
    assert np.flatnonzero(factor.sum()).tolist() == [3, 127]


def test_what_an_id_outside_brings_is_dropped():
    """NaN too: it is left out, not multiplied with 0."""
    Delta = jnp.asarray([[[jnp.nan], [2.0]], [[jnp.inf], [3.0]]])
    factor = Scatter(jnp.asarray([[-1, 1], [5, 1]]), Delta, 5)
    others = factor, Scatter(None, jnp.ones((2, 2, 1)), 5), hg.PerExample(jnp.ones((2, 5, 1)))

    @jax.jit
    def folds(f, others):
        inner = [f.inner(other) for other in others]
        return inner, (f.sum(), f.sum(jnp.asarray([1.0, 2.0])), f.sq_norms(), f.second_moment())

    inner, (total, weighted, sq_norms, second_moment) = folds(factor, others)
    assert np.isfinite(inner).all()
    assert total.tolist() == [[0], [5], [0], [0], [0]]
    assert weighted.tolist() == [[0], [8], [0], [0], [0]]
    assert sq_norms.tolist() == [4, 9]
    assert second_moment.tolist() == [[0], [13], [0], [0], [0]]


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (0, 2)])
def test_nothing_to_add(shape):
    for ids in (jnp.zeros(shape[:-1], int), None):
        factor = Scatter(ids, jnp.ones(shape), 4)
        total, second_moment, sq_norms = jax.jit(lambda f: (f.sum(), f.second_moment(), f.sq_norms()))(factor)
        assert total.tolist() == [[0, 0]] * 4
        assert second_moment.tolist() == [[0, 0]] * 4
        assert sq_norms.tolist() == [0] * shape[0]


def test_it_says_what_it_is():
    for factor in (FACTORS["tokens"], FACTORS["positions"]):
        assert (factor.batch, factor.shape, factor.dtype) == (BATCH, (ROWS, N), np.float64)
        again = jax.eval_shape(lambda f: f, factor)
        assert (again.batch, again.shape, again.dtype, again.rows) == (BATCH, (ROWS, N), np.float64, ROWS)
        assert jax.tree.structure(again) == jax.tree.structure(factor)


@pytest.mark.parametrize("name", ["tokens", "more-tokens-than-rows", "positions"])
def test_stacked_and_vmap(name):
    """One table for each layer of a `repeat`: an axis of layers in front of every array."""
    factor = FACTORS[name]
    layers = [factor, jax.tree.map(lambda a: np.asarray(a)[::-1], factor)]
    stacked = hg.Stacked(jax.tree.map(lambda *sides: jnp.asarray(np.stack(sides)), *layers))
    g = np.stack([gradients(layer) for layer in layers], axis=1)
    found = jax.jit(lambda f: (f.sum(jnp.asarray(WEIGHTS)), f.sq_norms(), f.second_moment(), f.per_example()))(stacked)
    squares = np.einsum("blri,blri->b", g, g)
    assert_same(found, (np.tensordot(WEIGHTS, g, 1), squares, (g**2).sum(0), g))


def test_sums_run_in_float32():
    """1,000 ones are 1,000; counted in bfloat16 they would stop at 256, because 256 + 1 rounds back to 256."""
    ones = jnp.ones((10, 100, 1), jnp.bfloat16)
    for factor in (Scatter(jnp.zeros((10, 100), int), ones, 200), Scatter(None, ones.reshape(1000, 1, 1), 2)):
        for weights in (None, jnp.ones(factor.batch, jnp.bfloat16)):
            total = factor.sum(weights)
            assert total.dtype == jnp.bfloat16
            assert total[0].astype(float).item() == 1000
    factor = Scatter(jnp.zeros((1, 1000), int), ones.reshape(1, 1000, 1), 2000)
    folds = jax.jit(lambda f: (f.sq_norms(), f.per_example(), f.second_moment(), f.inner(f)))(factor)
    assert all(fold.dtype == jnp.float32 for fold in folds)
    assert folds[0].tolist() == [1e6]
    in_float32 = Scatter(jnp.zeros((10, 100), int), ones, 200, jnp.float32)
    assert jax.eval_shape(lambda f: f.sum(), in_float32).dtype == jnp.float32


def test_a_squared_norm_is_never_below_zero():
    """Where two δ's of a row cancel but for rounding."""
    Delta = RNG.standard_normal((50, 1, 8)).astype(np.float32)
    Delta = np.concatenate([Delta, -Delta * np.float32(1 + 1e-7), Delta, -Delta], axis=1)
    factor = Scatter(jnp.zeros((50, 4), int), jnp.asarray(Delta), 9)
    assert (np.asarray(jax.jit(Scatter.sq_norms)(factor)) >= 0).all()


def test_what_it_refuses():
    with pytest.raises(
        hg.InputError, match=r"^Scatter: ids must have shape \(4, 3\) \(Delta's .*\), got int64 \(4, 2\)"
    ):
        Scatter(jnp.zeros((4, 2), int), jnp.ones((4, 3, 2)), 5).sum()
    with pytest.raises(hg.InputError, match=r"^Scatter: Delta must have at most 2 tokens.*, got float64 \(4, 3, 2\)"):
        Scatter(None, jnp.ones((4, 3, 2)), 2).sum()
    with pytest.raises(hg.InputError, match=r"^Scatter.sum: weights must have shape \(4,\)"):
        FACTORS["tokens"].sum(jnp.ones(3))
    with pytest.raises(hg.InputError, match=r"^Scatter.inner: other must have .*, got \(4, 5, 3\)"):
        FACTORS["tokens"].inner(scatter(np.zeros((BATCH, 2), int), 5))
