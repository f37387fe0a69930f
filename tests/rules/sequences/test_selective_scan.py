"""selective_scan: its chunks are its recurrence; a step of size 0 changes nothing; A's gradient is left by example."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, passes, together
from rules.refusals import refuses

from handgrad import rules
from handgrad.factors import Hadamard, PerExample

RNG = np.random.default_rng(0)
X, DELTA = RNG.standard_normal((2, 9, 3)), RNG.uniform(0, 1, (2, 9, 3))
A, D, H0 = -RNG.uniform(0.5, 2, (3, 5)), RNG.standard_normal(3), RNG.standard_normal((2, 3, 5))
B, C = RNG.standard_normal((2, 2, 9, 5))
GIVEN, DY = (X, DELTA, A, B, C, D, H0), (RNG.standard_normal((2, 9, 3)), RNG.standard_normal((2, 3, 5)))
RULE = rules.selective_scan


def test_every_chunk_is_the_recurrence():
    """And both halves of a sequence, one after the other, are the whole."""
    recurrence, *found = together((RULE.with_options(chunk=chunk), DY, GIVEN) for chunk in (1, 4, None))
    for one in found:
        assert_same(one, recurrence, 1e-13)

    @jax.jit
    def in_two():
        first, second = ([P[:, part] for P in (X, DELTA, B, C)] for part in (slice(4), slice(4, None)))
        (Y1, H), _ = RULE.forward(*first[:2], A, *first[2:], D, H0)
        (Y2, H), _ = RULE.forward(*second[:2], A, *second[2:], D, H)
        return jnp.concatenate([Y1, Y2], axis=1), H

    assert_same(in_two(), recurrence[0], 1e-13)


def test_one_state_that_halves():
    """h = h / 2 + x for ones, and a step of size 0 in between, which is not seen; then the cotangent of x."""
    one = np.ones((1, 4, 1))
    delta = np.array([1.0, 1, 0, 1])[None, :, None]
    run = jax.jit(lambda *given: passes(RULE, (one, np.zeros((1, 1, 1))), *given))
    (Y, H), (dX, *_) = run(one, delta, np.full((1, 1), -np.log(2)), one, one)
    np.testing.assert_allclose(np.ravel(Y), [1, 1.5, 1.5, 1.75], rtol=1e-15)
    assert H.item() == Y[0, -1, 0]
    np.testing.assert_allclose(np.ravel(dX), [1 + 0.5 + 0.5 + 0.25, 1 + 1 + 0.5, 0, 1], rtol=1e-15)


def test_factors():
    """A's gradient of each example, and D's in two sides: nothing of the batch is summed yet."""

    def look():
        _, kept = RULE.forward(*GIVEN)
        return RULE.backward(kept, DY)

    _, _, dA, _, _, dD, _ = jax.eval_shape(look)
    assert isinstance(dA, PerExample)
    assert dA.g.shape == (2, 3, 5)
    assert isinstance(dD, Hadamard)
    assert dD.A.shape == dD.Delta.shape == X.shape


def test_selective_scan_of_the_wrong_shape():
    refuses(RULE, "X must have shape (batch, time, n), got float64 (9, 3)", X[0], DELTA, A, B, C)
    refuses(RULE, "Delta must have shape (2, 9, 3) like X, got float64 (2, 9, 5)", X, B, A, B, C)
    refuses(RULE, "A must have shape (3, states) to meet X (2, 9, 3), got float64 (5, 3)", X, DELTA, A.T, B, C)
    refuses(RULE, "B must have shape (2, 9, 5) to meet A (3, 5), got float64 (2, 9, 3)", X, DELTA, A, X, C)
    refuses(RULE, "C must have shape (2, 9, 5) to meet A (3, 5), got float64 (2, 9, 3)", X, DELTA, A, B, X)
    refuses(RULE, "D must have shape (3,) (one …), got float64 (3, 5)", X, DELTA, A, B, C, A)
    refuses(RULE, "H0 must have shape (2, 3, 5) (a state …), got float64 (2, 9, 3)", X, DELTA, A, B, C, D, X)
