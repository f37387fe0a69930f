"""The rotary position embedding: what turning must keep, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, 3, 2, 6)))
POSITIONS = jnp.array([4, 0, 17])
both_forms = pytest.mark.parametrize("form", ["half", "interleaved"])


def turned(X, positions, **options):
    return rules.rotary_forward(X, jnp.asarray(positions), **options)[0]


@both_forms
def test_scores_depend_on_the_distance_alone(form):
    """A query at 3 and a key at 5 meet as at 103 and 105, and not as at 3 and 6."""
    q, k = X[:1, :1, :1], X[1:, :1, :1]

    def score(at, its):
        return float(jnp.vdot(turned(q, [at], form=form), turned(k, [its], form=form)))

    assert abs(score(3, 5) - score(103, 105)) < 1e-13
    assert abs(score(3, 5) - score(0, 2)) < 1e-13
    assert abs(score(3, 5) - score(3, 6)) > 1e-3


@both_forms
def test_it_is_a_rotation(form):
    """Lengths stay; position 0 stays where it is; and backward undoes forward."""
    Y, residuals = rules.rotary_forward(X, POSITIONS, form=form)
    np.testing.assert_allclose(jnp.linalg.norm(Y, axis=-1), jnp.linalg.norm(X, axis=-1), rtol=1e-14)
    assert (Y[:, 1] == X[:, 1]).all()
    dX, dpositions = rules.rotary_backward(residuals, Y, form=form)
    assert_same(dX, X)
    assert dpositions is None


def test_the_forms_differ_by_a_permutation_of_the_features():
    halves = np.array([0, 2, 4, 1, 3, 5])  # interleaved features, pair by pair in two halves
    interleaved = turned(X, POSITIONS, form="interleaved")
    assert_same(interleaved[..., halves], turned(X[..., halves], POSITIONS, form="half"))


def test_positions_of_each_example():
    each = jnp.stack([POSITIONS, POSITIONS + 5])
    Y = turned(X, each)
    assert (Y[:1] == turned(X[:1], each[0])).all()
    assert (Y[1:] == turned(X[1:], each[1])).all()


def test_angles_are_exact_in_reduced_dtypes():
    """Position 257 is 256 in bfloat16, a radian off; the angle is not."""
    x = jnp.asarray([[[[1.0, 0.0]]]], jnp.bfloat16)
    np.testing.assert_allclose(turned(x, [257]).ravel(), [np.cos(257.0), np.sin(257.0)], atol=2**-8)


REFUSED = {
    "odd": (X[..., :5], POSITIONS, {}, r"X must have shape .* with an even n, got float64 \(2, 3, 2, 5\)"),
    "rank": (X[0], POSITIONS, {}, r"X must have shape \(batch, tokens, heads, n\)"),
    "floats": (X, POSITIONS * 1.0, {}, r"positions must be integers, got float64 \(3,\)"),
    "a list": (X, [0, 1, 2], {}, "positions must be integers, got list"),
    "too few": (X, POSITIONS[:2], {}, r"positions must have shape \(3,\) or \(2, 3\) to meet X, got int64 \(2,\)"),
    "broadcasts": (X, POSITIONS[None], {}, r"positions must have shape \(3,\) or \(2, 3\) to meet X"),
    "base": (X, POSITIONS, {"base": 0}, "base must be a positive number, got 0"),
    "form": (X, POSITIONS, {"form": "paper"}, "form must be 'half' or 'interleaved', got 'paper'"),
}


@pytest.mark.parametrize(("X", "positions", "options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses(X, positions, options, sentence):
    with pytest.raises(hg.InputError, match=f"^rotary_forward: {sentence}"):
        rules.rotary_forward(X, positions, **options)
