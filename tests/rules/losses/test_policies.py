"""Policies: slopes at the clip, ratios that don't overflow, what doesn't count, groups of equal rewards."""

import functools
import math

import jax
import numpy as np
from helpers import optimized_jit
from rules.losses.rows import outcomes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
L, OLD, REFERENCE = -RNG.gamma(2, 1, (3, 3, 4))
MASK = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], bool)
A = RNG.standard_normal(3)


def test_the_slope_at_the_clip():
    """At the bound itself the slope is the ratio, beyond it 0, as torch.min and torch.clamp have it; under an advantage
    of the other sign nothing is clipped."""
    high, low = math.log1p(0.5), math.log1p(-0.5)
    d = np.array([[high, np.nextafter(high, 1), low, np.nextafter(low, -1), 0.0]])
    rows = [("ppo_loss", d, 0 * d, a * np.ones_like(d), {"clip": 0.5, "reduction": "sum"}) for a in (1.0, -1.0)]
    (_, up, _, dA, _), (_, down, *_) = outcomes(rows)
    np.testing.assert_allclose(-up, [[1.5, 0, 0.5, 0.5, 1]], rtol=1e-15)
    np.testing.assert_allclose(down, [[1.5, 1.5, 0.5, 0, 1]], rtol=1e-15)
    np.testing.assert_allclose(-dA, [[1.5, 1.5, 0.5, 0.5, 1]], rtol=1e-15)


def test_a_ratio_beyond_the_dtype():
    """e^1000 is beyond every bound of a positive advantage, and never taken; an impossible action has ratio 0."""
    for dtype in (np.float32, np.float64):
        d, zeros = np.array([[1000.0, -1000.0, -np.inf, 0.0]]).astype(dtype), np.zeros((1, 4), dtype)
        ((C, dL, _, dA, _),) = outcomes([("ppo_loss", d, zeros, zeros + 1, {"reduction": "sum"})])
        np.testing.assert_allclose(C, [-2.2], rtol=1e-6)
        np.testing.assert_allclose(dL, [[0, 0, 0, -1]])
        np.testing.assert_allclose(dA, [[-1.2, 0, 0, -1]], rtol=1e-6)


def test_an_advantage_of_zero():
    """A ratio of e^1000, which no advantage of 0 clips, counts nothing: the loss and dL are 0."""
    d, zeros = np.full((1, 2), 1000.0, np.float32), np.zeros((1, 2), np.float32)
    for C, dL, dL_old, *_ in outcomes([("ppo_loss", d, zeros, zeros), ("grpo_loss", d, zeros, d, zeros)]):
        assert not np.any(C)
        assert not np.any(dL)
        assert not np.any(dL_old)


def test_what_does_not_count():
    """What is NaN where the mask is False doesn't matter; an example in which nothing counts costs 0; a mean is that of
    the others alone."""
    filled = [np.where(MASK, a, np.nan) for a in (L, OLD, REFERENCE)]
    alone = [a[1:2, [0, 2, 3]] for a in (L, OLD, REFERENCE)]
    ((C, *cotangents, _), (first, dL, *_)) = outcomes([("grpo_loss", *filled, A, MASK), ("grpo_loss", *alone, A[1:2])])
    assert C[2] == 0
    for d in cotangents[:3]:
        assert (d[~MASK] == 0).all()
        assert np.isfinite(d).all()
    np.testing.assert_allclose(C[1], first[0], rtol=1e-13)
    np.testing.assert_allclose(cotangents[0][1, [0, 2, 3]], dL[0], rtol=1e-12)
    assert cotangents[3][2] == 0


def test_the_penalty_near_the_reference():
    """r²/2 (1 + r/3 …) to the last digits in float32, where e^r − 1 − r has none left; and its slope."""
    r = np.float32(2.0) ** -np.arange(0, 30, dtype=np.float32)
    r = np.concatenate([r, -r])[:, None]
    ((C, dL, _, dR, *_),) = outcomes([("grpo_loss", 0 * r, 0 * r, r, np.zeros(60, np.float32), {"beta": 1.0})])
    x = r[:, 0].astype(np.float64)
    series = sum(x ** (k - 2) / math.factorial(k) for k in range(2, 25)) * x**2
    np.testing.assert_allclose(C, series, rtol=4e-7)
    np.testing.assert_allclose(dR[:, 0], np.expm1(x), rtol=4e-7)
    np.testing.assert_array_equal(dL, -dR)


def test_without_an_update_it_is_the_score_function():
    """L_old = L as numbers: the gradient of −Σ a ℓ."""

    @optimized_jit
    def slopes(L):
        ours = lambda L: rules.ppo_loss(L, jax.lax.stop_gradient(L), A, reduction="sum").sum()  # noqa: E731
        return jax.grad(ours)(L)

    np.testing.assert_allclose(slopes(L), -np.broadcast_to(A[:, None], L.shape), rtol=1e-15)


def test_equal_rewards_and_large_ones():
    """No deviation: A = 0, and a slope that is that of R / ε; 1e30 in float32 doesn't overflow."""
    equal, dA = np.full((1, 4), 1000.1), np.array([[1.0, 0.0, 0.0, 0.0]])
    large = np.float32(1e30) * np.array([[1.0, 2.0, 4.0]], np.float32)

    @optimized_jit
    def run(equal, large):
        A, residuals = rules.group_advantages_forward(equal, epsilon=0.5)
        return A, *rules.group_advantages_backward(residuals, dA, epsilon=0.5), rules.group_advantages(large)

    A, dR, of_large = run(equal, large)
    np.testing.assert_array_equal(A, 0 * equal)
    np.testing.assert_allclose(dR, [[1.5, -0.5, -0.5, -0.5]], rtol=1e-14)
    np.testing.assert_allclose(of_large, (large - large.mean()) / large.astype(np.float64).std(ddof=1), rtol=1e-6)


def test_bad_input():
    refuse = functools.partial(refuses, rules.ppo_loss)
    refuse("L_old must have shape (3, 4) like L, got float64 (3, 3)", L, OLD[:, 1:], A)
    refuse("the advantages A must have shape (3, 4) (the first axes of L), got float64 (3, 1)", L, OLD, A[:, None])
    refuse("mask must have shape (3, 4) like L, got bool (4,)", L, OLD, A, MASK[0])
    refuse("mask must be of booleans, got float64 (3, 4)", L, OLD, A, MASK.astype(float))
    refuse("clip must be below 1, got 1.0", L, OLD, A, clip=1.0)
    refuse("clip_high must be a positive number, got 0", L, OLD, A, clip_high=0)
    refuse("reduction must be 'mean' or 'sum', got 'none'", L, OLD, A, reduction="none")
    refuses(rules.grpo_loss, "beta must be a positive number, got 0", L, OLD, REFERENCE, A, beta=0)
    one = "the rewards R must have shape (batch, group), group at least 2, got float64 (3, 1)"
    refuses(rules.group_advantages, one, A[:, None])
    refuses(rules.group_advantages, "epsilon must be a positive number, got 0", L, epsilon=0)
