"""REINFORCE: its mean over all actions is the gradient of the expected return, whatever the baseline."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import check_right, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
L, R = -RNG.gamma(2, 1, (3, 4)), RNG.standard_normal(3)
MASK = np.array([[1, 1, 0, 1]] * 3, bool)


def test_the_mean_over_all_actions():
    """Each action of one state in turn, weighted by its probability, with two baselines: the gradient of J.

    The weights are numbers: only log π is differentiated.
    """
    z, returns = RNG.standard_normal((2, 5))

    @optimized_jit
    def run(z):
        def estimate(z, baseline):
            losses = rules.reinforce_loss(jax.nn.log_softmax(z), returns, jnp.full(5, baseline))
            return jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(z)) * losses)

        means = [jax.grad(estimate)(z, baseline) for baseline in (0.0, 7.0)]
        return means, jax.grad(lambda z: jnp.sum(jax.nn.softmax(z) * returns))(z)

    means, truth = run(z)
    for mean in means:
        np.testing.assert_allclose(-mean, truth, rtol=1e-11, atol=1e-13)


def test_what_is_held_and_what_does_not_count():
    """Returns and baseline have no slope; NaN where the mask is False is in nothing."""

    @optimized_jit
    def run(L):
        C, kept = rules.reinforce_loss_forward(jnp.where(MASK, L, jnp.nan), R, R / 2, MASK, reduction="mean")
        return C, *rules.reinforce_loss_backward(kept, jnp.ones(3), reduction="mean")

    C, dL, dR, dB, _ = run(L)
    np.testing.assert_allclose(C, -(R / 2) * (L * MASK).sum(1) / 3, rtol=1e-13)
    np.testing.assert_allclose(dL, -(R / 2)[:, None] * MASK / 3, rtol=1e-14)
    assert not np.any([dR, dB])


def test_the_checker_takes_the_estimator():
    def surrogate(L, R, B):
        return -jnp.sum(jax.lax.stop_gradient(R - B)[:, None] * L, 1)

    quick = {"contracts": False, "transforms": (), "control": False}
    given = rules.reinforce_loss, L, R, np.ones(3)
    check_right(hg.check_rule(*given, reference=surrogate, differences=False, **quick))


def test_bad_input():
    refuse = functools.partial(refuses, rules.reinforce_loss)
    refuse("the returns R must have shape (3,) (the first axes of L), got float64 (2,)", L, R[:2])
    refuse("the baseline B must have shape (3,) like the returns R, got float64 (2,)", L, R, R[:2])
    refuse("mask must be of booleans, got float64 (3, 4)", L, R, R, L)
