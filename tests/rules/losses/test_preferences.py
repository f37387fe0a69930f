"""Preferences: every digit of sure and hopeless pairs, what a slope of zero is, tokens and their sums."""

import functools

import numpy as np
from rules.losses.rows import assert_edges, outcomes
from rules.refusals import refuses

from handgrad import rules

L, R = np.random.default_rng(0).standard_normal((2, 4, 2, 3))


def test_sure_and_hopeless_pairs():
    """β h from −80 to 80 in float32: the loss is log(1 + e^(−β h)), its slope −β / (1 + e^(β h)), to the end."""
    h = np.linspace(-80, 80, 65, dtype=np.float32)
    pairs = np.stack([h, np.zeros_like(h)], 1)
    ((C, dL, dR),) = outcomes([("dpo_loss", pairs, np.zeros_like(pairs), {"beta": 1.0})])
    h = h.astype(np.float64)
    np.testing.assert_allclose(C, np.logaddexp(0, -h), rtol=1e-6)
    np.testing.assert_allclose(dL[:, 0], -1 / (1 + np.exp(h)), rtol=1e-6)
    np.testing.assert_array_equal(dL[:, 1], -dL[:, 0])
    np.testing.assert_array_equal(dR, -dL)


def test_tokens_are_summed_and_slopes_that_vanish():
    """Each token of an answer has the answer's cotangent; DPO stops where σ(β h) = 1 − ε, IPO at its margin; two models
    that agree cost log 2."""
    sums = [a.sum(2) for a in (L, R)]
    logit = np.log(0.8 / 0.2)
    still = np.array([[logit / 0.1, 0.0]])
    tokens, whole, dpo, ipo, even = outcomes(
        [
            ("dpo_loss", L, R),
            ("dpo_loss", *sums),
            ("dpo_loss", still, 0 * still, {"label_smoothing": 0.2}),
            ("ipo_loss", np.array([[6.0, 1.0]]), np.array([[0.0, 0.0]])),
            ("dpo_loss", L, L),
        ]
    )
    np.testing.assert_allclose(tokens[0], whole[0], rtol=1e-13)
    np.testing.assert_allclose(tokens[1], np.broadcast_to(whole[1][..., None], L.shape), rtol=1e-13)
    assert np.abs(dpo[1]).max() < 1e-16
    assert [a.tolist() for a in ipo] == [[0.0], [[0.0, 0.0]], [[0.0, 0.0]]]
    np.testing.assert_allclose(even[0], np.full(4, np.log(2)), rtol=1e-15)


def test_edges():
    """A rejected answer that can't happen costs nothing; large and small numbers; a weight of 0."""
    never = np.array([[-1.0, -np.inf]])
    assert_edges(
        zero_times_infinity=[("dpo_loss", never, [[-1.0, -1.0]])],
        weightless=[(op, -never, [[-1.0, -1.0]]) for op in ("dpo_loss", "ipo_loss")],
        far=[("dpo_loss", [[-1.0, -2.0]], [[-0.5, -0.25]])],
        far_targets=True,
    )


def test_bad_input():
    for rule in (rules.dpo_loss, rules.ipo_loss):
        refuse = functools.partial(refuses, rule)
        refuse("L must have shape (batch, 2, ...), chosen and rejected, got float64 (4, 1, 3)", L[:, :1], R[:, :1])
        refuse("the reference's log-probabilities R must have shape (4, 2, 3) like L, got float64 (4, 2)", L, R[..., 0])
        refuse("beta must be a positive number, got 0", L, R, beta=0)
    refuses(rules.dpo_loss, "label_smoothing must be in [0, 1), got 1", L, R, label_smoothing=1)
