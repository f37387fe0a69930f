"""state_space_duality: its chunks are its recurrence; it is a selective scan whose features decay alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, passes, together
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.factors import Hadamard, Total

RNG = np.random.default_rng(0)
X, DELTA = RNG.standard_normal((2, 9, 4, 3)), RNG.uniform(0, 1, (2, 9, 4))
A, D, H0 = -RNG.uniform(0.5, 2, 4), RNG.standard_normal(4), RNG.standard_normal((2, 4, 3, 5))
B, C = RNG.standard_normal((2, 2, 9, 2, 5))
GIVEN, DY = (X, DELTA, A, B, C, D, H0), (RNG.standard_normal(X.shape), RNG.standard_normal(H0.shape))
RULE = rules.state_space_duality


def test_every_chunk_is_the_recurrence():
    """And both halves of a sequence, one after the other, are the whole."""
    recurrence, *found = together((RULE.with_options(chunk=chunk), DY, GIVEN) for chunk in (1, 4, None))
    for one in found:
        assert_same(one, recurrence)

    @jax.jit
    def in_two():
        first, second = ([P[:, part] for P in (X, DELTA, B, C)] for part in (slice(4), slice(4, None)))
        (Y1, H), _ = RULE.forward(*first[:2], A, *first[2:], D, H0)
        (Y2, H), _ = RULE.forward(*second[:2], A, *second[2:], D, H)
        return jnp.concatenate([Y1, Y2], axis=1), H

    assert_same(in_two(), recurrence[0])


def test_it_is_a_selective_scan_whose_features_decay_alike():
    """Each head alone, with its group's B and C; the cotangents of what its features share are their sums."""

    def scan(h):
        delta, skip = np.repeat(DELTA[:, :, h, None], 3, axis=2), np.repeat(D[h], 3)
        of_group = B[:, :, h // 2], C[:, :, h // 2]
        return X[:, :, h], delta, np.full((3, 5), A[h]), *of_group, skip, H0[:, h]

    dYs = [(DY[0][:, :, h], DY[1][:, h]) for h in range(4)]
    calls = [(RULE, DY, GIVEN), *((rules.selective_scan, dY, scan(h)) for h, dY in enumerate(dYs))]
    (Y, found), *heads = together(calls)
    assert_same(Y, (jnp.stack([Y for (Y, _), _ in heads], 2), jnp.stack([H for (_, H), _ in heads], 1)))
    dX, dDelta, dA, dB, dC, dD, dH0 = (np.stack(d) for d in zip(*(d for _, d in heads), strict=True))

    def by_group(d):
        return np.moveaxis(d.reshape(2, 2, *d.shape[1:]).sum(1), 0, 2)

    expected = np.moveaxis(dX, 0, 2), np.moveaxis(dDelta.sum(3), 0, 2), dA.sum((1, 2)), by_group(dB), by_group(dC)
    assert_same(found, (*expected, dD.sum(1), np.moveaxis(dH0, 0, 1)))


def test_one_state_that_halves():
    """h = h / 2 + x for ones, and a step of size 0 in between, which is not seen; then the cotangent of x."""
    one = np.ones((1, 4, 1, 1))
    delta = np.array([1.0, 1, 0, 1])[None, :, None]
    run = jax.jit(lambda *given: passes(RULE, (one, np.zeros((1, 1, 1, 1))), *given))
    (Y, H), (dX, *_) = run(one, delta, np.full(1, -np.log(2)), one, one)
    np.testing.assert_allclose(np.ravel(Y), [1, 1.5, 1.5, 1.75], rtol=1e-15)
    assert H.item() == Y[0, -1, 0, 0]
    np.testing.assert_allclose(np.ravel(dX), [1 + 0.5 + 0.5 + 0.25, 1 + 1 + 0.5, 0, 1], rtol=1e-15)


def test_factors_and_what_is_kept():
    """A number for each token and head; a state for each chunk, in float32; B and C aren't kept for each head."""
    like = [jax.ShapeDtypeStruct(P.shape, jnp.bfloat16) for P in GIVEN[:6]]
    (Y, H), kept = jax.eval_shape(lambda *given: RULE.forward(*given, chunk=4), *like)
    assert (Y.dtype, H.dtype, H.shape) == (jnp.bfloat16, jnp.float32, H0.shape)
    assert (kept.states.shape, kept.B.shape, kept.H0) == ((3, 2, 4, 5, 3), B.shape, None)
    _, _, dA, _, _, dD, dH0 = jax.eval_shape(lambda kept, dY: RULE.backward(kept, dY, chunk=4), kept, (Y, H))
    assert (type(dA), type(dD), dH0) == (Hadamard, Total, None)
    assert dA.Delta.shape == dD.Delta.shape == DELTA.shape
    with pytest.raises(hg.InputError, match=r"^state_space_duality_backward: chunk must be the forward pass's, .* 3 "):
        RULE.backward(kept, (Y, H), chunk=2)


def test_state_space_duality_of_the_wrong_shape():
    flat, others = X[:, :, 0], (DELTA, A, B, C)
    refuses(RULE, "X must have shape (batch, time, heads, n), none 0 …, got float64 (2, 9, 3)", flat, *others)
    refuses(RULE, "Delta must have shape (2, 9, 4) (a step …), got float64 (2, 9, 4, 3)", X, X, A, B, C)
    refuses(RULE, "A must have shape (4,) (a rate …), got float64 (2,)", X, DELTA, A[:2], B, C)
    sentence = "B must have shape (2, 9, groups, states), where groups divides the 4 heads of X, got …"
    refuses(RULE, sentence, X, DELTA, A, B[:, :, [0, 0, 1]], C)
    refuses(RULE, "C must have shape (2, 9, 2, 5) like B, got float64 (2, 9, 1, 5)", X, DELTA, A, B, C[:, :, :1])
    refuses(RULE, "D must have shape (4,) (a weight …), got float64 (2,)", X, *others, D[:2])
    refuses(RULE, "H0 must have shape (2, 4, 3, 5) (a state …), got float64 (2, 4, 5)", X, *others, D, H0[:, :, 0])
    refuses(RULE, "chunk must be a power of two, got 6", X, *others, chunk=6)
