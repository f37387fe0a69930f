"""Correlation against the gradients of each example that autodiff finds alone, window by window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.checks import InputError
from handgrad.factors import Correlation, PerExample, Shared, Stacked
from handgrad.factors.windows import Window

BATCH = 4
WEIGHTS = np.array([0.5, -2.0, 0.0, 3.0])
SPACE = {1: "W", 2: "HW", 3: "DHW"}


def plane(size=(2, 2), strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    return Window(size, strides, padding, dilation, groups)


# name: (window, space, n_in, n_out); Gram products pay where outputs are few and features many.
ROWS = {
    "plain": (plane(), (4, 3), 2, 3),
    "gram": (plane(), (3, 2), 2, 3),
    "gram-groups": (plane((1, 2), groups=2), (2, 2), 4, 6),
    "strides": (plane((3, 2), strides=(2, 3), padding=((1, 2), (0, 1))), (6, 5), 2, 2),
    "dilation": (plane((2, 3), strides=(2, 1), dilation=(3, 2), padding=((2, 0), (1, 3))), (5, 4), 1, 2),
    "groups": (plane(groups=2, padding=((1, 1), (1, 0))), (3, 3), 4, 2),
    "depthwise": (plane((3, 3), groups=3), (4, 5), 3, 6),
    "a margin that no window sees": (plane(strides=(4, 3)), (5, 4), 2, 1),
    "line": (Window((3,), (2,), ((2, 1),), (1,), 1), (7,), 2, 2),
    "solid": (Window((2, 1, 2), (1, 2, 1), ((0, 1), (0, 0), (1, 0)), (1, 1, 2), 2), (3, 3, 3), 2, 4),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def sides(row, seed=0, dtype=np.float64, batch=BATCH):
    window, space, n_in, n_out = row
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, *space, n_in))
    Delta = rng.standard_normal((batch, *window.outputs(space), n_out))
    return jnp.asarray(X.astype(dtype)), jnp.asarray(Delta.astype(dtype))


def gradients(row, X, Delta):
    """The oracle: (batch, *shape) in float64, from jax.grad through lax's convolution, example by example."""
    return np.stack([oracle(row)(x, d) for x, d in zip(np.asarray(X, float), np.asarray(Delta, float), strict=True)])


@functools.cache
def oracle(row):
    window, space, n_in, n_out = row
    letters = SPACE[len(space)]

    def product(K, x, delta):
        y = jax.lax.conv_general_dilated(
            x[None],
            K,
            window.strides,
            window.padding,
            rhs_dilation=window.dilation,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=window.groups,
        )
        return jnp.vdot(y[0], delta)

    K = np.zeros((*window.size, n_in // window.groups, n_out))
    return jax.jit(lambda x, delta: jax.grad(product)(K, x, delta))


def relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def dots(g, h):
    return np.einsum("bi,bi->b", g.reshape(len(g), -1), h.reshape(len(h), -1))


def folds(factor):
    return {
        "sum": factor.sum(),
        "weighted": factor.sum(jnp.asarray(WEIGHTS)),
        "per_example": factor.per_example(),
        "sq_norms": factor.sq_norms(),
        "norms, gram": factor.sq_norms("gram"),
        "norms, direct": factor.sq_norms("direct"),
        "gram": factor.gram(),
        "second_moment": factor.second_moment(),
        "example": factor.examples(2, 1).per_example(),
    }


def expected_folds(g):
    return {
        "sum": g.sum(0),
        "weighted": np.tensordot(WEIGHTS, g, 1),
        "per_example": g,
        "sq_norms": dots(g, g),
        "norms, gram": dots(g, g),
        "norms, direct": dots(g, g),
        "gram": g.reshape(len(g), -1) @ g.reshape(len(g), -1).T,
        "second_moment": (g**2).sum(0),
        "example": g[2:3],
    }


@every_row
def test_folds(row):
    X, Delta = sides(row)
    found = jax.jit(lambda X, Delta: folds(Correlation(X, Delta, row[0])))(X, Delta)
    for name, value in expected_folds(gradients(row, X, Delta)).items():
        assert relative_error(found[name], value) <= 1e-12, name
        assert found[name].dtype == np.float64, name


@pytest.mark.parametrize("name", ["plain", "gram-groups"])
def test_every_output_by_itself(name):
    """Its part of g_b is what its own δ makes."""
    row = ROWS[name]
    X, Delta = sides(row)
    outputs = Delta.shape[1:-1]
    alone = [jnp.zeros_like(Delta).at[:, *at].set(Delta[:, *at]) for at in np.ndindex(*outputs)]
    g = np.stack([gradients(row, X, delta) for delta in alone], axis=1)
    g = g.reshape(-1, *g.shape[2:])
    factor = Correlation(X, Delta, row[0])
    written_out, norms, total = jax.jit(lambda f: (f.per_example(), f.sq_norms(), f.sum()))(factor.by_token())
    assert relative_error(written_out, g) <= 1e-12
    assert relative_error(norms, dots(g, g)) <= 1e-12
    assert relative_error(total, factor.sum()) <= 1e-12


@pytest.mark.parametrize("name", ["plain", "gram", "gram-groups", "depthwise"])
def test_inner_products(name):
    """With the same kind, with gradients written out on either side, and with a sum over sites."""
    row = ROWS[name]
    one, two, three = sides(row, 1), sides(row, 2), sides(row, 3)
    g, h, k = (gradients(row, *given) for given in (one, two, three))

    @jax.jit
    def inner(one, two, three, written_out):
        factor, other, third = (Correlation(*given, row[0]) for given in (one, two, three))
        return {
            "same kind": factor.inner(other),
            "written out": factor.inner(PerExample(written_out)),
            "from written out": PerExample(written_out).inner(factor),
            "shared": factor.inner(Shared((other, third))),
            "from shared": Shared((other, third)).inner(factor),
        }

    for way, value in inner(one, two, three, jnp.asarray(h)).items():
        assert relative_error(value, dots(g, h + k if "shared" in way else h)) <= 1e-12, way


def test_inner_of_one_kernel_under_two_windows():
    """A tied kernel, once with strides and once without: other outputs, the same parameter."""
    one, two = ROWS["gram"], (plane(strides=(2, 1)), (3, 4), 2, 3)
    first, second = sides(one), sides(two, 1)
    factors = Correlation(*first, one[0]), Correlation(*second, two[0])
    found = jax.jit(lambda factor, other: factor.inner(other))(*factors)
    assert relative_error(found, dots(gradients(one, *first), gradients(two, *second))) <= 1e-12


@pytest.mark.parametrize("row", [ROWS["strides"], ROWS["gram-groups"]], ids=["strides", "gram-groups"])
def test_low_precision(row):
    """bfloat16: the folds run in float32 on exact products; `sum` is rounded once, at the end."""
    X, Delta = sides(row, dtype=jnp.bfloat16)
    found = jax.jit(lambda X, Delta: folds(Correlation(X, Delta, row[0])))(X, Delta)
    for name, value in expected_folds(gradients(row, X, Delta)).items():
        is_sum = name in ("sum", "weighted")
        assert found[name].dtype == (jnp.bfloat16 if is_sum else np.float32), name
        assert relative_error(found[name], value) <= (2.0**-8 if is_sum else 0) + 1e-6, name


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_bfloat16_run_in_float32(weighted):
    """1,000 ones are 1,000; counted in bfloat16 they would stop at 256."""
    factor = Correlation(jnp.ones((10, 100, 1), jnp.bfloat16), jnp.ones((10, 100, 1), jnp.bfloat16), WINDOW)
    total = factor.sum(jnp.ones(10, jnp.bfloat16) if weighted else None)
    assert total.dtype == jnp.bfloat16
    assert total.astype(float).item() == 1000


WINDOW = Window((1,), (1,), ((0, 0),), (1,))


@pytest.mark.parametrize(("dtype", "param_dtype"), [("bfloat16", "float32"), ("float32", "float64")])
def test_param_dtype(dtype, param_dtype):
    """The parameter's dtype is what `sum` returns; the other folds keep their precision."""
    X, Delta = sides(ROWS["plain"], dtype=dtype)
    factor = Correlation(X, Delta, ROWS["plain"][0], param_dtype)
    total, sq_norms = jax.eval_shape(lambda f: (f.sum(), f.sq_norms()), factor)
    assert factor.dtype == total.dtype == param_dtype
    assert sq_norms.dtype == np.float32
    assert Correlation(X, Delta.astype(float), ROWS["plain"][0]).dtype == np.float64


@every_row
def test_it_says_what_it_is(row):
    """And stays it, into a jit and out."""
    window, _, n_in, n_out = row
    factor = Correlation(*sides(row), window)
    shape = (*window.size, n_in // window.groups, n_out)
    for one in (factor, jax.eval_shape(lambda factor: factor, factor)):
        assert (one.batch, one.shape, one.dtype, one.window) == (BATCH, shape, np.float64, window)
    assert jax.eval_shape(lambda factor: factor.examples(0, 1), factor).batch == 1


@pytest.mark.parametrize("name", ["plain", "gram-groups"])
def test_vmap_and_stacked(name):
    row = ROWS[name]
    layers = [sides(row, seed) for seed in (0, 1)]
    factors = jax.tree.map(lambda *given: np.stack(given), *(Correlation(*given, row[0]) for given in layers))
    g = np.stack([gradients(row, *given) for given in layers])  # (layers, batch, *shape)
    found, sq_norms = jax.jit(lambda f: (folds(Stacked(f)), jax.vmap(lambda one: one.sq_norms())(f)))(factors)
    for fold, value in expected_folds(np.swapaxes(g, 0, 1)).items():
        assert relative_error(found[fold], value) <= 1e-12, fold
    assert relative_error(sq_norms, [dots(h, h) for h in g]) <= 1e-12


def test_an_empty_batch():
    row = ROWS["groups"]
    total = Correlation(*sides(row, batch=0), row[0]).sum()
    assert total.shape == (2, 2, 2, 2)
    assert not total.any()


@pytest.mark.parametrize("shape", [(3, 3, 2, 3), (4, 4, 2, 3), (4, 3, 1, 3), (1, 3, 2, 3)])
def test_sides_of_different_examples_or_outputs(shape):
    window, space, n_in, _ = ROWS["plain"]
    factor = Correlation(np.ones((4, *space, n_in)), np.ones(shape), window)
    with pytest.raises(
        InputError, match=r"^Correlation: Delta must have shape \(4, 3, 2, 3\) .*outputs.*, got float64"
    ):
        factor.sum()


def test_sq_norms_never_hold_every_gradient(monkeypatch):
    """Neither all gradients nor all patches, where outputs are many."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # several would hold some examples' each
    window = plane((3, 3), padding=((1, 1), (1, 1)))
    X = jax.ShapeDtypeStruct((128, 12, 12, 16), np.float32)
    program = jax.jit(lambda X, Delta: Correlation(X, Delta, window).sq_norms()).lower(X, X).compile()
    gradients, patches = 128 * 9 * 16 * 16 * 4, 128 * 144 * 9 * 16 * 4
    assert program.memory_analysis().temp_size_in_bytes < min(gradients, patches) / 4
