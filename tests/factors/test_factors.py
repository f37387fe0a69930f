"""Every fold of every factor, against the gradients of each example that autodiff finds alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

# One process for the whole file: what is compiled for a row serves all its tests.
pytestmark = pytest.mark.xdist_group("factors")

BATCH = 4
LAYERS, OUTER_LAYERS = 3, 2


class Row:
    """One factor of the table.

    Attributes:
      shape: the parameter's.
      draw: (random generator, batch) -> sides, NumPy float64.
      make: (*sides) -> factor.
      primal: (parameter, *sides of one example) -> the scalar whose gradient is g_b.
      batch_axes: the axis of the examples in each side.
    """

    def __init__(self, shape, draw, make, primal, batch_axes):
        self.shape, self.draw, self.make, self.primal, self.batch_axes = shape, draw, make, primal, batch_axes

    def sides(self, seed: int, dtype: Any = np.float64, batch: int = BATCH) -> tuple[Any, ...]:
        return tuple(jnp.asarray(side.astype(dtype)) for side in self.draw(np.random.default_rng(seed), batch))

    def gradients(self, sides: tuple[Any, ...]) -> np.ndarray:
        """The oracle: (batch, *shape) in float64, from jax.grad of the primal, one example at a time."""
        return np.asarray(self.every(np.zeros(self.shape), *(np.asarray(side, np.float64) for side in sides)))

    @functools.cached_property
    def every(self) -> Callable[..., Any]:
        return jax.jit(jax.vmap(jax.grad(self.primal), in_axes=(None, *self.batch_axes)))


def normal(*shapes: Callable[[int], tuple[int, ...]]) -> Callable[..., tuple[np.ndarray, ...]]:
    return lambda rng, batch: tuple(rng.standard_normal(shape(batch)) for shape in shapes)


def product(W, a, d):
    return jnp.vdot(a @ W, d)


def added(b, d):
    return jnp.vdot(jnp.zeros_like(d) + jnp.broadcast_to(b, d.shape), d)


def scaled(s, a, d):
    return jnp.vdot(a * jnp.broadcast_to(s, a.shape), d)


def outer(n_in: int, n_out: int, *middle: int) -> Row:
    return Row(
        (n_in, n_out),
        normal(lambda batch: (batch, *middle, n_in), lambda batch: (batch, *middle, n_out)),
        hg.Outer,
        product,
        (0, 0),
    )


def stacked_product(W, a, d):
    return sum(product(W[layer], a[layer], d[layer]) for layer in range(LAYERS))


ROWS = {
    # Gram products are the shorter way as long as T (n_in + n_out) <= 2 n_in n_out.
    "outer": outer(5, 3),
    "outer-1x1": outer(1, 1),
    "outer-tokens-gram": outer(6, 5, 3),
    "outer-tokens-direct": outer(2, 3, 7),
    "outer-one-token": outer(4, 3, 1),
    "outer-image-gram": outer(8, 8, 2, 3),
    "outer-image-direct": outer(2, 1, 3, 2),
    "total": Row((3,), normal(lambda batch: (batch, 3)), hg.Total, added, (0,)),
    "total-tokens": Row((3,), normal(lambda batch: (batch, 2, 4, 3)), hg.Total, added, (0,)),
    "hadamard": Row((3,), normal(*[lambda batch: (batch, 3)] * 2), hg.Hadamard, scaled, (0, 0)),
    "hadamard-tokens": Row((3,), normal(*[lambda batch: (batch, 4, 2, 3)] * 2), hg.Hadamard, scaled, (0, 0)),
    "per_example": Row((2, 3), normal(lambda batch: (batch, 2, 3)), hg.PerExample, jnp.vdot, (0,)),
    "per_example-scalar": Row((), normal(lambda batch: (batch,)), hg.PerExample, jnp.vdot, (0,)),
    "stacked-outer": Row(
        (LAYERS, 5, 2),
        normal(lambda batch: (LAYERS, batch, 5), lambda batch: (LAYERS, batch, 2)),
        lambda A, D: hg.Stacked(hg.Outer(A, D)),
        stacked_product,
        (1, 1),
    ),
    "stacked-outer-tokens-direct": Row(
        (LAYERS, 3, 2),
        normal(lambda batch: (LAYERS, batch, 6, 3), lambda batch: (LAYERS, batch, 6, 2)),
        lambda A, D: hg.Stacked(hg.Outer(A, D)),
        stacked_product,
        (1, 1),
    ),
    "stacked-total": Row(
        (LAYERS, 2),
        normal(lambda batch: (LAYERS, batch, 5, 2)),
        lambda D: hg.Stacked(hg.Total(D)),
        lambda b, d: sum(added(b[layer], d[layer]) for layer in range(LAYERS)),
        (1,),
    ),
    "stacked-stacked-outer": Row(
        (OUTER_LAYERS, LAYERS, 4, 2),
        normal(lambda batch: (OUTER_LAYERS, LAYERS, batch, 5, 4), lambda batch: (OUTER_LAYERS, LAYERS, batch, 5, 2)),
        lambda A, D: hg.Stacked(hg.Stacked(hg.Outer(A, D))),
        lambda W, a, d: sum(stacked_product(W[i], a[i], d[i]) for i in range(OUTER_LAYERS)),
        (2, 2),
    ),
    "shared-outer-outer": Row(
        (4, 3),
        normal(*(lambda batch, n=n, t=t: (batch, *t, n) for t in [(), (5,)] for n in (4, 3))),
        lambda A, D, B, E: hg.Shared((hg.Outer(A, D), hg.Outer(B, E))),
        lambda W, a, d, b, e: product(W, a, d) + product(W, b, e),
        (0, 0, 0, 0),
    ),
    "shared-outer-per_example": Row(
        (4, 3),
        normal(lambda batch: (batch, 2, 4), lambda batch: (batch, 2, 3), lambda batch: (batch, 4, 3)),
        lambda A, D, g: hg.Shared((hg.Outer(A, D), hg.PerExample(g))),
        lambda W, a, d, g: product(W, a, d) + jnp.vdot(W, g),
        (0, 0, 0),
    ),
    "shared-stackeds": Row(
        (LAYERS, 4, 3),
        normal(*(lambda batch, n=n: (LAYERS, batch, n) for n in (4, 3, 4, 3))),
        lambda A, D, B, E: hg.Shared((hg.Stacked(hg.Outer(A, D)), hg.Stacked(hg.Outer(B, E)))),
        lambda W, a, d, b, e: stacked_product(W, a, d) + stacked_product(W, b, e),
        (1, 1, 1, 1),
    ),
    "shared-hadamard-total": Row(
        (3,),
        normal(*[lambda batch: (batch, 3)] * 3),
        lambda A, D, E: hg.Shared((hg.Hadamard(A, D), hg.Total(E))),
        lambda s, a, d, e: scaled(s, a, d) + added(s, e),
        (0, 0, 0),
    ),
    "stacked-shared": Row(
        (LAYERS, 4, 3),
        normal(*(lambda batch, n=n: (LAYERS, batch, n) for n in (4, 3, 4, 3))),
        lambda A, D, B, E: hg.Stacked(hg.Shared((hg.Outer(A, D), hg.Outer(B, E)))),
        lambda W, a, d, b, e: stacked_product(W, a, d) + stacked_product(W, b, e),
        (1, 1, 1, 1),
    ),
}
WEIGHTS = np.array([0.5, -2.0, 0.0, 3.0])

SOME = [
    "outer",
    "outer-tokens-direct",
    "total-tokens",
    "hadamard",
    "per_example-scalar",
    "stacked-outer",
    "stacked-shared",
]

# Each kind of factor, and each of its two ways.
LOW = [
    "outer-tokens-direct",
    "hadamard-tokens",
    "stacked-shared",
    "outer",
    "outer-tokens-gram",
    "total-tokens",
    "per_example",
    "stacked-outer",
    "shared-outer-per_example",
    "shared-hadamard-total",
]

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
some_rows = pytest.mark.parametrize("row", [ROWS[name] for name in SOME], ids=SOME)


def relative_error(computed: Any, expected: Any) -> float:
    computed, expected = np.asarray(computed, np.float64), np.asarray(expected, np.float64)
    assert computed.shape == expected.shape
    return float(np.linalg.norm(computed - expected) / max(float(np.linalg.norm(expected)), 1e-300))


def dots(g: np.ndarray, h: np.ndarray) -> np.ndarray:
    """⟨g_b, h_b⟩ for each example."""
    return np.einsum("bi,bi->b", g.reshape(len(g), -1), h.reshape(len(h), -1))


def folds(factor: Any, b: Any) -> dict[str, Any]:
    """Everything that a factor knows for itself alone; `b` is an example, which may be traced."""
    return {
        "sum": factor.sum(),
        "weighted": factor.sum(jnp.asarray(WEIGHTS)),
        "per_example": factor.per_example(),
        "sq_norms": factor.sq_norms(),
        **{f"norms, {method}": factor.sq_norms(method) for method in factor.norm_methods()},
        "gram": factor.gram(),
        "second_moment": factor.second_moment(),
        "example": factor.examples(b, 1).per_example(),
        "example_weighted": factor.examples(1, 1).sum(jnp.asarray(WEIGHTS[1:2])),
    }


def expected_folds(g: np.ndarray, b: int = 0) -> dict[str, np.ndarray]:
    return {
        "sum": g.sum(0),
        "weighted": np.tensordot(WEIGHTS, g, 1),
        "per_example": g,
        "sq_norms": dots(g, g),
        "norms, direct": dots(g, g),
        "gram": g.reshape(len(g), -1) @ g.reshape(len(g), -1).T,
        "second_moment": (g**2).sum(0),
        "example": g[b : b + 1],
        "example_weighted": WEIGHTS[1] * g[1],
    }


@every_row
def test_folds(row):
    sides = row.sides(0)
    g, traced = row.gradients(sides), jax.jit(lambda b, *sides: folds(row.make(*sides), b))
    for b in (0, 3):
        found = traced(b, *sides)
        for name, value in expected_folds(g, b).items():
            assert relative_error(found[name], value) <= 1e-12, name
            assert found[name].dtype == np.float64, name


@every_row
def test_inner_products(row):
    """With the same kind, with gradients written out on either side, and with a sum over sites."""
    one, two, three = row.sides(1), row.sides(2), row.sides(3)
    g, h, k = row.gradients(one), row.gradients(two), row.gradients(three)

    @jax.jit
    def inner(one, two, three, written_out):
        factor, other, third = row.make(*one), row.make(*two), row.make(*three)
        return {
            "same kind": factor.inner(other),
            "written out": factor.inner(hg.PerExample(written_out)),
            "from written out": hg.PerExample(written_out).inner(factor),
            "shared": factor.inner(hg.Shared((other, third))),
            "from shared": hg.Shared((other, third)).inner(factor),
        }

    found = inner(one, two, three, jnp.asarray(h))
    for name, value in found.items():
        assert relative_error(value, dots(g, h + k if "shared" in name else h)) <= 1e-12, name


@pytest.mark.parametrize("tokens", [(1, 1), (1, 4), (3, 2), (30, 1), (1, 30), (9, 9)])
def test_inner_of_outers_with_unlike_tokens(tokens):
    """Both ways around, and on both sides of the rule that picks the shorter one."""
    one, two = (outer(4, 3, count) for count in tokens)
    sides, others = one.sides(0), two.sides(1)
    found = jax.jit(lambda *sides: hg.Outer(*sides[:2]).inner(hg.Outer(*sides[2:])))(*sides, *others)
    assert relative_error(found, dots(one.gradients(sides), two.gradients(others))) <= 1e-12


@every_row
def test_it_says_what_it_is(row):

    def look(*sides):
        factor = row.make(*sides)
        assert (factor.batch, factor.shape, factor.dtype) == (BATCH, row.shape, np.float64)
        assert factor.examples(0, 1).batch == 1
        assert factor.examples(0, 1).shape == row.shape
        assert hg.is_factor(factor)
        assert isinstance(factor.examples(3, 1), type(factor))
        assert not hg.is_factor(factor.per_example())

    jax.eval_shape(look, *row.sides(0))


@every_row
def test_it_is_a_pytree(row):
    """Into a jit and out, through tree.map and flatten: the same factor."""
    factor = row.make(*row.sides(0))
    for other in (jax.eval_shape(lambda factor: factor, factor), jax.tree.map(lambda side: side, factor)):
        assert type(other) is type(factor)
        assert (other.batch, other.shape, other.dtype) == (factor.batch, factor.shape, factor.dtype)
        assert jax.tree.structure(other) == jax.tree.structure(factor)
    assert all(a is b for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(factor), strict=True))


@some_rows
def test_vmap_and_scan(row):
    """A factor with one more axis in front, taken apart by vmap and by scan."""
    many = [row.sides(seed) for seed in (0, 1)]
    factors = jax.tree.map(lambda *sides: jnp.asarray(np.stack(sides)), *(row.make(*sides) for sides in many))

    def some_folds(factor):
        return factor.sum(jnp.asarray(WEIGHTS)), factor.sq_norms(), factor.second_moment()

    @jax.jit
    def both(factors):
        return jax.vmap(some_folds)(factors), jax.lax.map(some_folds, factors)

    expected = [expected_folds(row.gradients(sides)) for sides in many]
    for found in both(factors):
        for value, name in zip(found, ("weighted", "sq_norms", "second_moment"), strict=True):
            assert relative_error(value, np.stack([one[name] for one in expected])) <= 1e-12, name


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "bfloat16") for name in LOW), *((name, "float32") for name in LOW[:3])]
)
def test_low_precision(name, dtype):
    """Sums come back in the parameter's dtype; every other fold in float32, where it was computed.

    The products of two bfloat16 are exact in float32, so that the oracle on the same rounded numbers leaves the
    rounding of the sums alone: some ulps of float32, and one rounding to bfloat16 (half an ulp, 2⁻⁸ relative) of each
    element at the end.
    """
    row = ROWS[name]
    sides = row.sides(0, dtype)
    found, expected = jax.jit(lambda *sides: folds(row.make(*sides), 0))(*sides), expected_folds(row.gradients(sides))
    for fold, value in expected.items():
        is_sum = fold in ("sum", "weighted", "example_weighted")
        assert found[fold].dtype == (dtype if is_sum else np.float32), fold
        last_rounding = 2.0**-8 if is_sum and dtype == "bfloat16" else 0
        assert relative_error(found[fold], value) <= last_rounding + 1e-6, fold


@pytest.mark.parametrize(("dtype", "size"), [("float16", 1e4), ("float32", 1e15)])
@pytest.mark.parametrize("name", ["outer", "outer-tokens-gram", "outer-tokens-direct", "hadamard-tokens"])
def test_a_large_and_a_small_side(name, dtype, size):
    """The gradients are about 1: no fold overflows or underflows on the way. The squares of a side must fit float32."""
    row = ROWS[name]
    run = jax.jit(lambda *sides: folds(row.make(*sides), 0))
    A, Delta = row.draw(np.random.default_rng(0), BATCH)
    for scale in (size, 1 / size):
        sides = jnp.asarray((scale * A).astype(dtype)), jnp.asarray((Delta / scale).astype(dtype))
        found, expected = run(*sides), expected_folds(row.gradients(sides))
        for fold, value in expected.items():
            is_sum = fold in ("sum", "weighted", "example_weighted")
            last_rounding = 2.0**-11 if is_sum and dtype == "float16" else 0
            assert relative_error(found[fold], value) <= last_rounding + 2e-6, fold


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda ones: hg.Outer(ones[:, None], ones[:, None]), id="outer"),
        pytest.param(lambda ones: hg.Outer(ones.reshape(10, -1, 1), ones.reshape(10, -1, 1)), id="outer-tokens"),
        pytest.param(lambda ones: hg.Total(ones[:, None]), id="total"),
        pytest.param(lambda ones: hg.Total(ones.reshape(10, -1, 1)), id="total-tokens"),
        pytest.param(lambda ones: hg.Hadamard(ones[:, None], ones[:, None]), id="hadamard"),
        pytest.param(lambda ones: hg.PerExample(ones), id="per_example"),
        pytest.param(lambda ones: hg.Stacked(hg.Outer(ones[None, :, None], ones[None, :, None])), id="stacked"),
        pytest.param(lambda ones: hg.Shared((hg.Total(ones[:500, None]), hg.Total(ones[500:, None]))), id="shared"),
    ],
)
def test_sums_of_bfloat16_run_in_float32(make):
    """1,000 ones are 1,000; counted in bfloat16 they would stop at 256, because 256 + 1 rounds back to 256."""
    factor = make(jnp.ones(1000, jnp.bfloat16))

    def totals(factor):
        return factor.sum(), factor.sum(jnp.ones(factor.batch, jnp.bfloat16))

    for total in (*totals(factor), *jax.jit(totals)(factor)):
        assert total.dtype == jnp.bfloat16
        assert np.asarray(total, np.float64).item() == 1000


def test_shared_adds_its_sites_before_rounding():
    """256 + 1 + 1 = 258, a bfloat16; rounded site by site it would be 256."""
    sites = tuple(hg.Total(jnp.full((1, 1), value, jnp.bfloat16)) for value in (256, 1, 1))
    assert hg.Shared(sites).sum().astype(float).item() == 258


@pytest.mark.parametrize(
    ("dtype", "param_dtype"), [("bfloat16", "float32"), ("float32", "float64"), ("float64", "bfloat16")]
)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda A, p: hg.Outer(A[:, 0], A[:, 0], p), id="outer"),
        pytest.param(hg.Outer, id="outer-tokens"),
        pytest.param(hg.Total, id="total"),
        pytest.param(hg.Hadamard, id="hadamard"),
        pytest.param(lambda A, p: hg.Stacked(hg.Outer(A[None], A[None], p)), id="stacked"),
        pytest.param(lambda A, p: hg.Shared((hg.Outer(A, A, p), hg.Outer(A, A, p))), id="shared"),
    ],
)
def test_param_dtype(make, dtype, param_dtype):
    """The parameter's dtype is what `sum` returns, whatever the sides are; the other folds keep their precision."""
    A = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 2)).astype(dtype))
    both = (A, A, param_dtype) if make in (hg.Outer, hg.Hadamard) else (A, param_dtype)
    factor = make(*both)
    assert factor.dtype == param_dtype

    @jax.jit
    def folded(factor):
        sums = factor.sum(), factor.sum(jnp.ones(3))
        return sums, factor.per_example(), factor.sq_norms(), factor.second_moment()

    sums, g, sq_norms, second_moment = folded(factor)
    assert all(total.dtype == param_dtype for total in sums)
    accumulator = np.float64 if dtype == "float64" else np.float32
    g = np.asarray(g, np.float64)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    for fold, expected in ((sq_norms, dots(g, g)), (second_moment, (g**2).sum(0))):
        assert fold.dtype in (accumulator, jnp.promote_types(accumulator, param_dtype))
        assert relative_error(fold, expected) <= tolerance


def test_param_dtype_defaults_to_the_promoted_one():
    low, high = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3), jnp.float32)
    assert hg.Outer(low, high).dtype == hg.Outer(high, low).dtype == hg.Hadamard(low, high).dtype == jnp.float32
    assert hg.Outer(low, low).dtype == hg.Total(low).dtype == hg.PerExample(low).dtype == jnp.bfloat16
