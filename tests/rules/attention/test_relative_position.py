"""The relative position bias: T5's buckets, one number a diagonal, and a factor that is linear in the tokens."""

import functools

import jax
import numpy as np
import pytest
from helpers import passes
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.factors import Scatter

RNG = np.random.default_rng(0)
RULE = rules.relative_position_bias


def test_t5s_buckets():
    """32 of them, up to 128: in two directions, and of the past alone."""
    buckets = rules.relative_position_buckets(np.arange(-300, 301))
    begins = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    past, ahead = buckets[300::-1], buckets[301:]
    assert [list(past).index(bucket) for bucket in range(16)] == begins
    assert [list(ahead).index(16 + bucket) + 1 for bucket in range(1, 16)] == begins[1:]
    assert (set(past), set(ahead)) == (set(range(16)), set(range(17, 32)))
    assert (np.diff(past) >= 0).all()
    assert (np.diff(ahead) >= 0).all()
    causal = rules.relative_position_buckets(np.arange(-300, 301), bidirectional=False)
    assert (causal[300:] == 0).all()
    assert (causal[284:300] == np.arange(16, 0, -1)).all()
    assert causal[300 - 127] == causal[0] == 31


def test_diagonals():
    """What is added is constant along each; the table's gradient adds them up; it is a factor of distances."""
    dY, table = RNG.standard_normal((2, 3, 4, 6)), RNG.standard_normal((8, 3))
    rule = RULE.with_options(max_distance=4)
    Y, (dS, dtable) = jax.jit(lambda *a: passes(rule, *a))(dY, np.zeros_like(dY), table)
    distances = range(-3, 6)
    assert all(np.ptp(np.diagonal(np.asarray(Y), d, 2, 3), axis=2).max() == 0 for d in distances)
    buckets, expected = rules.relative_position_buckets(np.array(distances), 8, max_distance=4), np.zeros((8, 3))
    np.add.at(expected, buckets, [np.trace(dY, d, 2, 3).sum(0) for d in distances])
    np.testing.assert_allclose(dtable, expected, rtol=1e-13, atol=1e-13)
    assert (np.asarray(dS) == dY).all()
    kept = jax.eval_shape(rule.forward, dY, table)[1]
    factor = jax.eval_shape(rule.backward, kept, dY)[1]
    assert isinstance(factor, Scatter)
    assert (factor.Delta.shape, factor.ids.shape) == ((2, 9, 3), (2, 9))


def test_bad_input():
    refuse, S, table = functools.partial(refuses, RULE), np.zeros((2, 3, 4, 4)), np.zeros((8, 3))
    refuse("S must have shape (batch, heads, tokens, keys), tokens, keys ≥ 1, got float64 (2, 3, 4)", S[..., 0], table)
    refuse("table must have shape (buckets, heads), got float64 (8,)", S, table[:, 0])
    refuse("table must have shape (8, 3) to meet S (2, 3, 4, 4), got float64 (8, 2)", S, table[:, :2])
    with pytest.raises(hg.InputError, match=r"^relative_position_buckets: .* got 7 buckets and 128$"):
        RULE.forward(S, table[:7])
    with pytest.raises(hg.InputError, match=r"^relative_position_buckets: .* at least 2, .* got 1 buckets and 128$"):
        RULE.forward(S, table[:1], bidirectional=False)
    with pytest.raises(hg.InputError, match=r"^relative_position_buckets: .* got 8 buckets and 2$"):
        RULE.forward(S, table, max_distance=2)
