"""Every fold of every factor, against the gradients of each example that autodiff finds alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factors.table import BATCH, ROWS, WEIGHTS, check_folds, dots, folds, jit, recomputed, relative_error
from helpers import assert_same

import handgrad as hg
from handgrad.factors import Contraction, Correlation, Hadamard, Outer, PerExample, Scatter, Shared, Stacked, Total
from handgrad.factors.windows import Window

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


@every_row
def test_folds_and_inner_products(row):
    """Inner products with the same kind, with gradients written out on either side, and with a sum over sites."""
    one, two, three = row.sides(0), row.sides(1), row.sides(2)

    @jit
    def run(b, one, two, three):
        g, h, k = row.gradients(one, two, three)
        factor, other, third = row.make(*one), row.make(*two), row.make(*three)
        written_out, shared = PerExample(h), Shared((other, third))
        alone = factor.inner(other), factor.inner(written_out), written_out.inner(factor)
        return folds(factor, b), (*alone, factor.inner(shared), shared.inner(factor)), (g, h, k)

    for b in (0, 3):
        found, inner, (g, h, k) = jax.device_get(run(b, one, two, three))
        check_folds(found, g, np.float64, np.float64, 1e-12, b)
    for value, expected in zip(inner, [dots(g, h)] * 3 + [dots(g, h + k)] * 2, strict=True):
        assert relative_error(value, expected) <= 1e-12


@every_row
def test_it_is_a_pytree_and_says_what_it_is(row):
    """Into a jit and out, through tree.map and flatten: the same factor."""
    factor = row.make(*row.sides(0))
    for other in (jax.eval_shape(lambda factor: factor, factor), jax.tree.map(lambda side: side, factor)):
        assert type(other) is type(factor)
        assert (other.batch, other.shape, other.dtype) == (BATCH, row.shape, np.float64)
        assert jax.tree.structure(other) == jax.tree.structure(factor)
    assert all(a is b for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(factor), strict=True))

    def look(factor):
        one = factor.examples(3, 1)
        assert type(one) is type(factor)
        assert (one.batch, one.shape) == (1, row.shape)
        assert hg.factors.is_factor(factor)
        assert not hg.factors.is_factor(factor.per_example())

    jax.eval_shape(look, factor)


@pytest.mark.parametrize(
    "name",
    [
        *("outer", "outer-direct", "total-tokens", "hadamard", "per_example-scalar", "recomputed", "stacked-shared"),
        *("contraction-tokens", "correlation-plain", "correlation-gram-groups"),
        *("scatter-tokens", "scatter-more-tokens-than-rows", "positions"),
    ],
)
def test_stacked_vmap_and_scan(name):
    """A factor with one more axis in front, taken apart by Stacked, by vmap and by scan."""
    row = ROWS[name]
    many = [row.sides(seed) for seed in (0, 1)]

    def some_folds(factor):
        return factor.sum(jnp.asarray(WEIGHTS)), factor.sq_norms(), factor.second_moment()

    @jit
    def run(*many):
        factors = jax.tree.map(lambda *sides: jnp.stack(sides), *(row.make(*sides) for sides in many))
        stacked = Stacked(factors)
        of_stacked = (*some_folds(stacked), stacked.per_example(), stacked.gram())
        return row.gradients(*many), of_stacked, (jax.vmap(some_folds)(factors), jax.lax.map(some_folds, factors))

    g, of_stacked, of_each = jax.device_get(run(*many))
    each = [
        np.stack([np.tensordot(WEIGHTS, one, 1) for one in g]),
        np.stack([dots(one, one) for one in g]),
        (g**2).sum(1),
    ]
    rows = np.moveaxis(g, 0, 1).reshape(BATCH, -1)
    expected = each[0], each[1].sum(0), each[2], np.moveaxis(g, 0, 1), rows @ rows.T
    for found, wanted in ((of_stacked, expected), *((found, each) for found in of_each)):
        for value, right in zip(found, wanted, strict=True):
            assert relative_error(value, right) <= 1e-12


# Each kind of factor, and each of its methods.
LOW = [
    *("outer", "outer-gram", "outer-direct", "total-tokens", "hadamard-tokens", "per_example", "stacked-outer"),
    *("stacked-shared", "shared-outer-per_example", "shared-hadamard-total", "contraction-tokens"),
    *("correlation-strides", "correlation-gram-groups", "scatter-tokens"),
]


def folds_and_gradients(rows, sides):
    return {name: (folds(row.make(*sides[name])), row.gradients(sides[name])[0]) for name, row in rows.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_low_precision(dtype):
    """Sums come back in the parameter's dtype; every other fold in float32, where it was computed.

    The products of two bfloat16 are exact in float32, so that the oracle on the same rounded numbers leaves the
    rounding of the sums alone: some ulps of float32, and one rounding to bfloat16 of each element at the end.
    """
    rows = {name: ROWS[name] for name in (LOW if dtype == "bfloat16" else ["outer-direct", "contraction-tokens"])}
    run = jit(partial(folds_and_gradients, rows))
    for found, g in jax.device_get(run({name: row.sides(0, dtype) for name, row in rows.items()})).values():
        check_folds(found, g, np.float32, jnp.dtype(dtype), 1e-6)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 1e4), ("float32", 1e15)])
def test_a_large_and_a_small_side(dtype, size):
    """The gradients are about 1: no fold overflows or underflows on the way. The squares of a side must fit float32."""
    rows = {name: ROWS[name] for name in ("outer", "outer-gram", "outer-direct", "hadamard-tokens")}
    run = jax.jit(partial(folds_and_gradients, rows))
    for scale in (size, 1 / size):
        sides = {name: row.sides(0) for name, row in rows.items()}
        sides = {name: ((scale * A).astype(dtype), (Delta / scale).astype(dtype)) for name, (A, Delta) in sides.items()}
        for found, g in jax.device_get(run(sides)).values():
            check_folds(found, g, np.float32, jnp.dtype(dtype), 2e-6)


LINE = Window((1,), (1,), ((0, 0),), (1,))


def kinds(A, p=None):
    """A factor of each kind of (batch, tokens, n), whose parameter has dtype p."""
    return {
        "outer": Outer(A[:, 0], A[:, 0], p),
        "outer-tokens": Outer(A, A, p),
        "total": Total(A, p),
        "hadamard": Hadamard(A, A, p),
        "stacked": Stacked(Outer(A[None], A[None], p)),
        "shared": Shared((Outer(A, A, p), Outer(A, A, p))),
        "contraction": Contraction(A, A, "bti,bto->io", p),
        "correlation": Correlation(A, A, LINE, p),
        "scatter": Scatter(jnp.zeros(A.shape[:2], int), A, 4, p),
    }


@pytest.mark.parametrize("shape", [(1000, 1, 1), (10, 100, 1)])
def test_sums_of_bfloat16_run_in_float32(shape):
    """1,000 ones are 1,000; counted in bfloat16 they would stop at 256, because 256 + 1 rounds back to 256."""

    def totals(A):
        every = kinds(A) | {"per_example": PerExample(A[:, 0]), "positions": Scatter(None, A, A.shape[1])}
        return {name: (f.sum(), f.sum(jnp.ones(f.batch, A.dtype))) for name, f in every.items()}

    found, exact = jax.jit(lambda *ones: [totals(A) for A in ones])(np.ones(shape, jnp.bfloat16), np.ones(shape))
    assert exact["total"][0].item() == 1000
    assert {total.dtype for total in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
    assert_same(jax.tree.map(np.float64, found), exact, rtol=0)


DTYPES = [("bfloat16", "float32"), ("float32", "float64"), ("float64", "bfloat16")]


def test_param_dtype():
    """The parameter's dtype is what `sum` returns, whatever the sides are; the other folds keep their precision."""
    A = np.random.default_rng(0).standard_normal((3, 5, 2))

    def folded(A, dtype, p):
        out = {}
        for name, f in kinds(A.astype(dtype), p).items():
            assert f.dtype == p
            out[name] = (f.sum(), f.sum(jnp.ones(3))), f.per_example(), f.sq_norms(), f.second_moment()
        return out

    for dtype, p in DTYPES:
        for sums, *others in jax.eval_shape(lambda A, to=(dtype, p): folded(A, *to), A).values():
            accumulator = np.float64 if dtype == "float64" else np.float32
            assert all(total.dtype == p for total in sums)
            assert all(fold.dtype in (accumulator, jnp.promote_types(accumulator, p)) for fold in others)
    for _, g, sq_norms, second_moment in jax.device_get(jit(lambda A: folded(A, "float64", "bfloat16"))(A)).values():
        assert relative_error(sq_norms, dots(g, g)) <= 1e-12
        assert relative_error(second_moment, (g**2).sum(0)) <= 1e-12


def test_param_dtype_defaults_to_the_promoted_one():
    low, high = np.ones((2, 3), jnp.bfloat16), np.ones((2, 3), np.float32)
    assert Outer(low, high).dtype == Outer(high, low).dtype == Hadamard(low, high).dtype == jnp.float32
    assert Outer(low, low).dtype == Total(low).dtype == PerExample(low).dtype == jnp.bfloat16


# Tokens as examples, projections, empty batches.

TOKENS = 4
RNG = np.random.default_rng(0)
A, B, DELTA = (RNG.standard_normal((3, TOKENS, n)) for n in (5, 5, 2))
IDS = RNG.integers(-1, 6, (3, TOKENS))
OUTER = Outer(A, DELTA)
ONE_HOT = (IDS[..., None] == np.arange(5)).astype(float)
POSITIONS = np.broadcast_to(np.eye(TOKENS, 5), (3, TOKENS, 5))


def of_tokens(A):
    return np.einsum("bti,bto->btio", A, DELTA)


# A factor, and each token's part of its gradient: (batch, tokens, *shape).
PARTS = {
    "outer": (OUTER, of_tokens(A)),
    "total": (Total(DELTA), DELTA),
    "hadamard": (Hadamard(A, B), A * B),
    "scatter": (Scatter(IDS, DELTA, 5), of_tokens(ONE_HOT)),
    "positions": (Scatter(None, DELTA, 5), of_tokens(POSITIONS)),
    "shared": (Shared((Scatter(IDS, DELTA, 5), OUTER)), of_tokens(ONE_HOT + A)),
}


@pytest.mark.parametrize("name", PARTS)
def test_tokens_as_examples(name):
    factor, parts = PARTS[name]

    @jit
    def run(factor):
        tokens = factor.by_token()
        twice = Stacked(jax.tree.map(lambda a: jnp.stack([a, 2 * a if a.dtype == float else a]), factor))
        found = tokens.per_example(), tokens.sq_norms(), tokens.sum(), tokens.gram()
        return found, twice.by_token().sum(), twice.sum()

    g = parts.reshape(-1, *parts.shape[2:])
    flat = g.reshape(len(g), -1)
    found, of_stacked, expected = run(factor)
    assert_same(found, (g, dots(g, g), g.sum(0), flat @ flat.T))
    assert_same(of_stacked, expected)


def test_projections():
    P = jnp.asarray(RNG.standard_normal((5, 3)))
    factors = {name: PARTS[name][0] for name in ("outer", "scatter", "positions", "shared")}
    factors["per_example"] = PerExample(of_tokens(A).sum(1))

    @jit
    def both(factors):
        assert all(factor.project(P).shape == (3, 2) for factor in factors.values())
        small = {name: jnp.einsum("bio,ir->bro", f.per_example(), P) for name, f in factors.items()}
        return {name: f.project(P).per_example() for name, f in factors.items()}, small

    assert_same(*both(factors))


def test_an_empty_batch():
    """Sums are 0, folds over examples are empty."""
    empty = {
        **{name: factor.pick(lambda a: a[:0]) for name, (factor, _) in PARTS.items()},
        "per_example": PerExample(np.zeros((0, 5, 2))),
        "correlation": Correlation(np.zeros((0, 4, 2)), np.zeros((0, 3, 2)), Window((2,), (1,), ((0, 0),), (1,))),
        "correlation-groups": ROWS["correlation-gram-groups"].make(*ROWS["correlation-gram-groups"].sides(0, batch=0)),
        "contraction": Contraction(A[:0], DELTA[:0], "bti,bto->io"),
        "recomputed": recomputed(A[:0], DELTA[:0]),
    }

    @jit
    def run(empty):
        return {n: ((f.sq_norms(), f.inner(f)), f.gram(), (f.sum(), f.second_moment())) for n, f in empty.items()}

    for name, (numbers, gram, wholes) in run(empty).items():
        assert [a.shape for a in (*numbers, gram)] == [(0,), (0,), (0, 0)], name
        assert all(whole.shape == empty[name].shape and not np.any(whole) for whole in wholes), name
