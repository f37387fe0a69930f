"""The rotary position embedding: what rotating must keep, and what it refuses."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 2, 6))
POSITIONS = np.array([4, 0, 17])
both_forms = pytest.mark.parametrize("form", ["half", "interleaved"])


@both_forms
def test_scores_depend_on_the_distance_alone(form):
    """A query at 3 and a key at 5 match as at 103 and 105, and not as at 3 and 6."""
    rotate = optimized_jit(lambda x, position: rules.rotary_forward(x, position, form=form)[0])
    q, k = X[:1, :1, :1], X[1:, :1, :1]

    def score(at, its):
        return np.vdot(rotate(q, np.array([at])), rotate(k, np.array([its])))

    assert abs(score(3, 5) - score(103, 105)) < 1e-13
    assert abs(score(3, 5) - score(0, 2)) < 1e-13
    assert abs(score(3, 5) - score(3, 6)) > 1e-3


@both_forms
def test_it_is_a_rotation(form):
    """Lengths stay; position 0 changes nothing; backward undoes forward. Positions may be of each example."""
    each = np.stack([POSITIONS, POSITIONS + 5])

    @optimized_jit
    def run(X):
        rule = rules.rotary.with_options(form=form)
        Y, _ = rule.forward(X, POSITIONS)
        apart = [rule.forward(X[b : b + 1], each[b])[0] for b in (0, 1)]
        return Y, passes(rule, Y, X, POSITIONS)[1], rule.forward(X, each)[0], jnp.concatenate(apart)

    Y, (dX, dpositions), of_each, apart = run(X)
    np.testing.assert_allclose(np.linalg.norm(Y, axis=-1), np.linalg.norm(X, axis=-1), rtol=1e-14)
    assert (np.asarray(Y)[:, 1] == X[:, 1]).all()
    assert_same(np.asarray(dX), X)
    assert dpositions is None
    assert_same(of_each, apart, rtol=1e-15)


def test_the_forms_differ_by_a_permutation_of_the_features():
    halves = np.array([0, 2, 4, 1, 3, 5])  # interleaved features, pair by pair in two halves

    @optimized_jit
    def both(X, permuted):
        one, other = ((X, "interleaved"), (permuted, "half"))
        return [rules.rotary_forward(x, POSITIONS, form=form)[0] for x, form in (one, other)]

    interleaved, half = both(X, X[..., halves])
    assert_same(np.asarray(interleaved)[..., halves], np.asarray(half))


def test_angles_are_exact_in_reduced_dtypes():
    """Position 257 is 256 in bfloat16, a radian off; the angle is not."""
    x = jnp.asarray(np.array([[[[1.0, 0.0]]]]), jnp.bfloat16)
    Y = optimized_jit(lambda x: rules.rotary_forward(x, np.array([257]))[0])(x)
    np.testing.assert_allclose(np.asarray(Y, np.float64).ravel(), [np.cos(257.0), np.sin(257.0)], atol=2**-8)


def test_bad_input():
    refuse = functools.partial(refuses, rules.rotary)
    refuse("X must have shape …with an even n, got float64 (2, 3, 2, 5)", X[..., :5], POSITIONS)
    refuse("X must have shape (batch, tokens, heads, n)…", X[0], POSITIONS)
    refuse("positions must be integers, got float64 (3,)", X, POSITIONS * 1.0)
    refuse("positions must be integers, got list", X, [0, 1, 2])
    refuse("positions must have shape (3,) or (2, 3) to meet X, got int64 (2,)", X, POSITIONS[:2])
    refuse("positions must have shape (3,) or (2, 3) to meet X, got int64 (1, 3)", X, POSITIONS[None])
    refuse("base must be a positive number, got 0", X, POSITIONS, base=0)
    refuse("features must be even and at most 6, a head's, got 3", X, POSITIONS, features=3)
    refuse("features must be even and at most 6, a head's, got 8", X, POSITIONS, features=8)
    refuse("scaling must be a RotaryScaling, as YarnScaling, or None, got float", X, POSITIONS, scaling=2.0)
    refuse("form must be 'half' or 'interleaved', got 'paper'", X, POSITIONS, form="paper")
