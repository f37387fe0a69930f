"""The conditional random field: an example by hand, what is forbidden, sure networks, padding, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)


@optimized_jit
def run(Z, W, start, end, labels, lengths=None):
    """The loss, and the cotangents of Z, W, start and end, W's example by example."""
    C, kept = rules.crf_loss_forward(Z, W, start, end, labels, lengths)
    dZ, dW, dstart, dend, *_ = rules.crf_loss_backward(kept, jnp.ones_like(C))
    return C, dZ, dW.per_example(), dstart.Delta, dend.Delta


def test_by_hand():
    """Two steps, two tags, e^Z = (1 2; 3 1), e^W = (1 2; 1 1): the four sequences weigh 3, 2, 6 and 2, together 13."""
    Z, W, zeros = np.log([[[1.0, 2], [3, 1]]]), np.log([[1.0, 2], [1, 1]]), np.zeros(2)
    C, dZ, dW, dstart, dend = run(Z, W, zeros, zeros, np.array([[1, 0]]))
    np.testing.assert_allclose(C, [np.log(13 / 6)], rtol=1e-15)
    np.testing.assert_allclose(13 * dZ[0], [[5, -5], [-4, 4]], rtol=1e-14)
    np.testing.assert_allclose(13 * dW[0], [[3, 2], [6 - 13, 2]], rtol=1e-14)
    assert (dstart == dZ[:, 0]).all()
    assert (dend == dZ[:, 1]).all()


def exact(Z, W, start, end, labels):
    """The loss in NumPy's longest float, one step after the other; and −log1p(−(1 − p)) needs none."""
    alpha = np.exp(np.longdouble(start) + Z[0])
    score = start[labels[0]] + Z[0][labels[0]]
    for z, one, two in zip(Z[1:], labels[:-1], labels[1:], strict=True):
        alpha, score = (alpha @ np.exp(np.longdouble(W))) * np.exp(z), score + W[one, two] + z[two]
    return np.log(alpha @ np.exp(np.longdouble(end))) - score - end[labels[-1]]


def test_a_network_that_is_sure_of_its_labels():
    """In float32 the loss and each gradient have the digits of a number that is e^-gap small; numbers that float32
    does not round. The gradients of the scores of each step sum to 0."""
    gaps, labels = np.array([0.0, 8.0, 12.0]), np.array([1, 1, 0, 2, 2])
    Z, W, start, end = (np.round(RNG.standard_normal(shape) * 16) / 16 for shape in ((5, 3), (3, 3), 3, 3))
    Z = Z + gaps[:, None, None] * np.eye(3)[labels]
    given = (a.astype(np.float32) for a in (Z, W, start, end))
    C, dZ, dW, *_ = run(*given, np.stack([labels] * 3))
    np.testing.assert_allclose(C, [exact(z, W, start, end, labels) for z in Z], rtol=2e-6)
    wide = run(Z, W, start, end, np.stack([labels] * 3))
    for mine, right in zip((dZ, dW), wide[1:3], strict=True):
        largest = np.abs(right).max((1, 2), keepdims=True)
        assert (np.abs(mine - right) / largest).max() < 1e-5
    np.testing.assert_allclose(np.asarray(wide[1]).sum(-1), 0, atol=1e-15)


def test_forbidden_transitions_and_what_can_not_be_seen_at_trace_time():
    """A transition of −∞ takes its sequences out, whose gradient is 0; where it takes the labels out, the loss is +∞
    and every gradient 0. A label that is no tag and a length out of range: NaN, for the example alone. Padding is not
    read. No step costs nothing."""
    rows = [
        ([1, 2, 2, 9], 3),
        ([0, 1, 2, 2], 4),
        ([0, 0, 9, 9], 0),
        ([0, 3, 0, 0], 4),
        ([0, 0, 0, 0], 5),
        ([-1, 0, 0, 0], 1),
    ]
    labels, lengths = np.array([row for row, _ in rows]), np.array([length for _, length in rows])
    Z, W, start, end = (RNG.standard_normal(shape) for shape in ((6, 4, 3), (3, 3), 3, 3))
    W[0, 1] = -np.inf
    Z[np.arange(4)[None] >= lengths[:, None]] = np.nan
    C, dZ, dW, dstart, dend = map(np.asarray, run(Z, W, start, end, labels, lengths))
    assert C[1] == np.inf
    assert C[2] == 0
    assert np.isnan(C[3:]).all()
    for d in (dZ, dW, dstart, dend):
        assert np.isfinite(d[:3]).all()
        assert not d[1:3].any()
        assert np.isnan(d[3:]).reshape(3, -1).all(axis=1).all()
    assert (dW[0, 0, 1], dZ[0, 3].any()) == (0, False)
    # The same with a transition of e^-800, and without the padding.
    alone = run(Z[:1, :3], np.where(-np.inf == W, -800.0, W), start, end, labels[:1, :3])
    assert_same((C[:1], dZ[:1, :3], dW[:1], dstart[:1], dend[:1]), tuple(map(np.asarray, alone)), 1e-14)
    np.testing.assert_allclose(C[0], float(exact(Z[0, :3], W, start, end, labels[0, :3])), rtol=1e-14)


GOOD = (np.zeros((2, 4, 3)), np.zeros((3, 3)), np.zeros(3), np.zeros(3), np.ones((2, 4), int), np.array([4, 4]))


def test_arguments_of_the_wrong_kind():
    Z, W, start, end, labels, lengths = GOOD
    refuse = functools.partial(refuses, rules.crf_loss)
    refuse("the scores Z must have shape (batch, time, tags), time, tags ≥ 1, got float64 (2, 3)", Z[:, 0], *GOOD[1:])
    refuse("the scores Z must have shape …, got float64 (2, 0, 3)", Z[:, :0], *GOOD[1:])
    refuse("W must have shape (3, 3) (from tag, to tag), got float64 (3, 2)", Z, W[:, :2], start, end, labels, lengths)
    refuse("end must have shape (3,) (a score for each tag), got float64 (2,)", Z, W, None, end[:2], labels, lengths)
    refuse("labels must have shape (2, 4) (a tag for each step), got int64 (2, 3)", Z, W, start, end, labels[:, :3])
    refuse("labels must be integers (batch, time) of batch 2, got float64 (2, 4)", Z, W, start, end, 1.0 * labels)
    refuse("lengths must be integers (batch,) of batch 2, got int64 (1,)", *GOOD[:-1], lengths[:1])
    refuse("residuals must be 'save' or 'recompute', got None", *GOOD, residuals=None)


def test_no_array_of_every_step_and_every_two_tags():
    """Both passes as one program, 64 steps of 32 tags: autodiff of the forward scan keeps (time, tags, tags)."""
    shapes = (1, 64, 32), (32, 32), (32,), (32,)
    given = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes] + [jax.ShapeDtypeStruct((1, 64), np.int32)]
    compiled = jax.jit(run).lower(*given).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.25 * 4 * 64 * 32 * 32
    kept = jax.eval_shape(functools.partial(rules.crf_loss_forward, residuals="recompute"), *given)[1]
    assert kept.log_ways is None
    assert jax.eval_shape(hg.crf_loss(residuals="recompute").forward, hg.CrfScores(*given[:4]), given[4])[1] == kept
