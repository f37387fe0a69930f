"""Contraction: every fold against the gradients of each example that autodiff finds alone, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.factors import Contraction, is_factor

BATCH = 4
WEIGHTS = jnp.array([0.5, -2.0, 0.0, 3.0])
SIZES = {"b": BATCH, "t": 3, "s": 2, "i": 2, "o": 3, "h": 2, "r": 4}
# A, Delta, the parameter, and Y = einsum(A, parameter) whose cotangent Delta is.
ROWS = {
    "outer": ("bi,bo->io", "bi,io->bo"),
    "outer-tokens": ("bti,bto->io", "bti,io->bto"),
    "heads": ("bthi,btho->hio", "bthi,hio->btho"),
    "hadamard": ("bti,bti->i", "bti,i->bti"),
    "inside": ("bir,bo->iro", "bir,iro->bo"),
    "transposed": ("bi,bo->oi", "bi,oi->bo"),
    "diagonal": ("btt,bo->to", "btt,to->bo"),
    "summed": ("bsi,bo->io", "bsi,io->bo"),
    "scalar": ("bt,bt->", "bt,->bt"),
    "small": ("bti,bth->ih", "bti,ih->bth"),
}
every_row = pytest.mark.parametrize(("subscripts", "primal"), ROWS.values(), ids=ROWS.keys())


def sides(subscripts, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [
        jnp.asarray(rng.standard_normal([SIZES[letter] for letter in term]).astype(dtype))
        for term in subscripts.split("->")[0].split(",")
    ]


def gradients(subscripts, primal, A, Delta):
    """The oracle: (batch, *shape), by jax.grad of ⟨Δ, einsum(A, W)⟩, one example at a time."""
    W = jnp.zeros([SIZES[letter] for letter in subscripts.split("->")[1]], A.dtype)

    def one(W, a, delta):
        return jnp.vdot(jnp.einsum(primal, a[None], W), delta)

    return jax.vmap(jax.grad(one), (None, 0, 0))(W, A, Delta)


def dots(g, h):
    return jnp.sum((g * h).reshape(BATCH, -1), axis=1)


@every_row
def test_folds(subscripts, primal):
    @jax.jit
    def both(one, two):
        factor, other = Contraction(*one, subscripts), Contraction(*two, subscripts)
        g, h = gradients(subscripts, primal, *one), gradients(subscripts, primal, *two)
        found = {
            "sum": factor.sum(),
            "weighted": factor.sum(WEIGHTS),
            "per_example": factor.per_example(),
            "sq_norms": factor.sq_norms(),
            "gram": factor.gram(),
            "second_moment": factor.second_moment(),
            "inner": factor.inner(other),
            "written out": factor.inner(hg.PerExample(h)),
            "example": factor.examples(2, 1).per_example(),
        }
        expected = {
            "sum": g.sum(0),
            "weighted": jnp.tensordot(WEIGHTS, g, 1),
            "per_example": g,
            "sq_norms": dots(g, g),
            "gram": g.reshape(BATCH, -1) @ g.reshape(BATCH, -1).T,
            "second_moment": (g**2).sum(0),
            "inner": dots(g, h),
            "written out": dots(g, h),
            "example": g[2:3],
        }
        return found, expected

    one, two = sides(subscripts), sides(subscripts, 1)
    found, expected = both(one, two)
    assert_same(found, expected)
    factor = Contraction(*one, subscripts)
    assert (factor.batch, factor.shape, factor.dtype) == (BATCH, expected["sum"].shape, np.float64)
    assert is_factor(factor)
    assert jax.eval_shape(lambda f: f, factor).shape == factor.shape


def test_it_generalizes_outer_and_hadamard():
    for subscripts, other in (("bti,bto->io", hg.Outer), ("bti,bti->i", hg.Hadamard)):
        A, Delta = sides(subscripts)
        mine, theirs = Contraction(A, Delta, subscripts), other(A, Delta)
        assert mine.shape == theirs.shape

        @jax.jit
        def both(one, two):
            folds = [(f.sum(), f.sq_norms(), f.second_moment(), f.per_example()) for f in (one, two)]
            return (folds[0], one.inner(two)), (folds[1], two.inner(one))

        assert_same(*both(mine, theirs))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_low_precision(dtype):
    """Sums come back in the parameter's dtype, every other fold in float32; 1,000 ones are 1,000."""
    factor = Contraction(*sides("bti,bto->io", dtype=dtype), "bti,bto->io")
    assert jax.eval_shape(lambda f: f.sum(), factor).dtype == factor.dtype == dtype
    folds = jax.eval_shape(lambda f: (f.sq_norms(), f.second_moment(), f.per_example()), factor)
    assert all(fold.dtype == jnp.float32 for fold in folds)
    ones = jnp.ones((1000, 1), dtype)
    assert Contraction(ones, ones, "bi,bo->io").sum().astype(float).item() == 1000
    assert Contraction(ones, ones, "bi,bo->io", jnp.float32).sum().dtype == jnp.float32


def test_under_stacked_and_shared():
    A, Delta = sides("bti,bto->io")
    one = Contraction(A, Delta, "bti,bto->io")
    stacked = hg.Stacked(jax.tree.map(lambda a: jnp.asarray(np.stack([a, 2 * a])), one))
    assert stacked.shape == (2, 2, 3)

    @jax.jit
    def both(one, stacked):
        shared = hg.Shared((one, hg.Outer(one.A, one.Delta)))
        total, sq_norms = one.sum(), one.sq_norms()
        expected = jnp.stack([total, 4 * total]), 17 * sq_norms, 4 * sq_norms
        return (stacked.sum(), stacked.sq_norms(), shared.sq_norms()), expected

    assert_same(*both(one, stacked))


@pytest.mark.parametrize(
    ("subscripts", "message"),
    [
        ("bti,to->io", "subscripts must begin with one batch letter on both sides, and not have it in the parameter"),
        ("bti,bto->bo", "subscripts must begin with one batch letter on both sides, and not have it in the parameter"),
        ("bti,bto->iz", "subscripts must give the parameter letters of A or Delta, each once"),
        ("bti,bto->ii", "subscripts must give the parameter letters of A or Delta, each once"),
        ("bi,bto->io", "A must have 2 axes, 'bi', got float64 (4, 3, 2)"),
        ("bti,bio->io", "Delta must have 2 along 'i' of 'bio', got float64 (4, 3, 3)"),
        ("bti,bto", "subscripts must be like 'bti,bto->io'"),
        ("b...i,b...o->io", "subscripts must be like 'bti,bto->io'"),
    ],
)
def test_refusals(subscripts, message):
    A, Delta = sides("bti,bto->io")
    with pytest.raises(hg.InputError) as raised:
        Contraction(A, Delta, subscripts).sum()
    assert str(raised.value).startswith(f"Contraction: {message}")
