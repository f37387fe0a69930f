"""Tokens as examples, projections, empty batches: what every kind of factor has in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.factors import Recomputed
from handgrad.factors.windows import Window

RNG = np.random.default_rng(0)
BATCH, TOKENS = 3, 4


def drawn(*shape):
    return jnp.asarray(RNG.standard_normal((BATCH, TOKENS, *shape)))


A, B, DELTA = drawn(5), drawn(5), drawn(2)
IDS = jnp.asarray(RNG.integers(-1, 6, (BATCH, TOKENS)))
OUTER = hg.Outer(A, DELTA)
# A factor, and each token's part of its gradient: (batch, tokens, *shape).
PARTS = {
    "outer": (OUTER, jnp.einsum("bti,bto->btio", A, DELTA)),
    "total": (hg.Total(DELTA), DELTA),
    "hadamard": (hg.Hadamard(A, B), A * B),
    "scatter": (hg.Scatter(IDS, DELTA, 5), jnp.expand_dims(IDS, (2,)) == jnp.arange(5)[None, None]),
    "positions": (hg.Scatter(None, DELTA, 5), jnp.broadcast_to(jnp.eye(TOKENS, 5)[None], (BATCH, TOKENS, 5))),
    "shared": (
        hg.Shared((hg.Scatter(IDS, DELTA, 5), OUTER)),
        (jnp.expand_dims(IDS, 2) == jnp.arange(5)[None, None]) + A,
    ),
}
for name in ("scatter", "positions", "shared"):
    factor, named = PARTS[name]
    PARTS[name] = factor, jnp.einsum("bti,bto->btio", named.astype(DELTA.dtype), DELTA)


@pytest.mark.parametrize("name", PARTS)
def test_tokens_as_examples(name):
    factor, parts = PARTS[name]
    written_out = hg.PerExample(parts.reshape(-1, *parts.shape[2:]))

    @jax.jit
    def folds(tokens):
        return tokens.per_example(), tokens.sq_norms(), tokens.sum(), tokens.gram()

    assert_same(folds(factor.by_token()), folds(written_out))
    stacked = hg.Stacked(
        jax.tree.map(lambda a: jnp.stack([a, 2 * a]) if a.dtype == float else jnp.stack([a, a]), factor)
    )
    assert_same(stacked.by_token().sum(), jnp.stack([factor.sum(), stacked.sum()[1]]))


@pytest.mark.parametrize("name", ["outer", "scatter", "positions", "shared", "per_example"])
def test_projections(name):
    P = jnp.asarray(RNG.standard_normal((5, 3)))
    factor = hg.PerExample(OUTER.per_example()) if name == "per_example" else PARTS[name][0]

    @jax.jit
    def both(factor):
        small = jnp.einsum("bio,ir->bro", factor.per_example(), P)
        return factor.project(P).per_example(), small

    assert_same(*both(factor))
    assert factor.project(P).shape == (3, 2)


def again(rows, shared, weights, options):
    return hg.Outer(*rows).accumulate(weights)


WINDOW = Window((2,), (1,), ((0, 0),), (1,))
EMPTY = {
    **{name: factor.pick(lambda a: a[:0]) for name, (factor, _) in PARTS.items()},
    "per_example": hg.PerExample(jnp.zeros((0, 5, 2))),
    "correlation": hg.Correlation(jnp.zeros((0, 4, 2)), jnp.zeros((0, 3, 2)), WINDOW),
    "contraction": hg.Contraction(A[:0], DELTA[:0], "bti,bto->io"),
    "recomputed": Recomputed(jnp.zeros((5, 2)), (A[:0], DELTA[:0]), (), again, (), np.dtype(float)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch(name):
    """Nothing to add is 0, nothing to measure is empty."""
    factor = EMPTY[name]
    assert factor.sq_norms().shape == (0,)
    assert factor.inner(factor).shape == (0,)
    assert factor.gram().shape == (0, 0)
    for whole in (factor.sum(), factor.second_moment()):
        assert whole.shape == factor.shape
        assert not whole.any()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_gram_of_any_batch(batch):
    """Odd and even, and one: every pair is found, whichever is first."""
    sides = (jnp.asarray(RNG.standard_normal((batch, 2, n))) for n in (4, 3))
    factor = hg.Outer(*sides)
    G = factor.per_example().reshape(batch, -1)
    np.testing.assert_allclose(jax.jit(lambda f: f.gram())(factor), G @ G.T, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OUTER.sq_norms("fast"), "Outer.sq_norms: method must be 'auto', 'gram' or 'direct', got 'fast'"),
        (
            lambda: hg.Stacked(hg.Outer(A[None], DELTA[None])).project(jnp.ones((5, 2))),
            "Stacked.project: P must have shape (1, 5, r), got float64 (5, 2)",
        ),
        (lambda: OUTER.project(jnp.ones(5)), "Outer.project: P must have shape (5, r), got float64 (5,)"),
        (
            lambda: hg.PerExample(jnp.ones((2, 3))).project(jnp.ones((3, 1))),
            "PerExample.project: expected a matrix's factor, got that of (3,)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(hg.InputError) as raised:
        call()
    assert str(raised.value) == message
