"""Sinkhorn: closed forms, both ends of ε, convergence, weights of 0, large costs, memory, errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same
from rules.refusals import refuses

from handgrad import layers, rules

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnames=("epsilon", "iterations"))
def run(M, a=None, b=None, epsilon=0.5, iterations=100):
    """The cost, and each cotangent."""
    C, kept = rules.sinkhorn_forward(M, a, b, epsilon=epsilon, iterations=iterations)
    return C, *rules.sinkhorn_backward(kept, jnp.ones_like(C), epsilon=epsilon, iterations=iterations)


def test_two_points():
    """Costs 0 and 1, equal weights: C = −ε log ((1 + e^(−1 / ε)) / 2), and P is e^(−m / ε), normalized. The same moved
    by a constant."""
    M = np.array([[[0.0, 1], [1, 0]], [[3, 4], [4, 3]]])
    C, dM, *_ = run(M)
    kernel = np.exp(-M[0] / 0.5)
    np.testing.assert_allclose(C, np.array([0, 3]) - 0.5 * np.log(kernel.sum() / 4), rtol=1e-14)
    np.testing.assert_allclose(dM, [kernel / kernel.sum()] * 2, rtol=1e-14)


def test_at_convergence_the_gradient_is_the_plan():
    """dM has the row and column sums a and b, and C is ⟨P, M⟩ + ε KL(P ‖ a bᵀ). The slope by a along a direction that
    keeps its sum is that of the converged cost."""
    M, a, b, d = (
        RNG.uniform(0, 2, (1, 4, 3)),
        *(RNG.dirichlet(np.ones(n), 1) for n in (4, 3)),
        np.array([1.0, -1, 0, 0]),
    )
    moved = [np.concatenate([p, p]) for p in (M, a, b)]
    moved[1] = a + 1e-6 * np.stack([d, -d])
    every = [np.concatenate(pair) for pair in zip((M, a, b), moved, strict=True)]
    C, P, da, db = (np.asarray(x) for x in run(*every))
    np.testing.assert_allclose(P[0].sum(1), a[0], atol=1e-15)
    np.testing.assert_allclose(P[0].sum(0), b[0], atol=1e-15)
    entropy = (P[0] * np.log(P[0] / np.outer(a[0], b[0]))).sum()
    np.testing.assert_allclose(C[0], (P[0] * M[0]).sum() + 0.5 * entropy, rtol=1e-13)
    np.testing.assert_allclose((C[1] - C[2]) / 2e-6, da[0] @ d, rtol=1e-8)
    assert np.isfinite(db).all()


def test_both_ends_of_epsilon():
    """Large: every source to every sink, ⟨a bᵀ, M⟩. Small: the best of all permutations, the plan too."""
    M = RNG.uniform(0, 2, (1, 3, 3))
    C, dM, *_ = run(M, epsilon=1e6, iterations=2)
    np.testing.assert_allclose([*C, dM.max()], [M.mean(), 1 / 9], rtol=1e-6)
    C, dM, *_ = run(M, epsilon=1e-3, iterations=300)
    cost, best = min((M[0, range(3), p].mean(), p) for p in itertools.permutations(range(3)))
    np.testing.assert_allclose(C, [cost], atol=1e-3 * np.log(3) + 1e-6)
    np.testing.assert_allclose(dM[0], np.eye(3)[list(best)] / 3, atol=1e-6)


def test_weights_of_zero_and_large_costs():
    """A point of weight 0 is as good as away, and has a finite price; costs of 1e30 in float32 stay finite."""
    M, a, b = RNG.uniform(0, 2, (1, 3, 2)), np.array([[0.4, 0.6, 0]]), np.array([[0.3, 0.7]])
    C, dM, da, db = run(M, a, b, iterations=7)
    without = run(M[:, :2], a[:, :2], b, iterations=7)
    assert_same((C, dM[:, :2], da[:, :2], db), without, 1e-14)
    assert (dM[0, 2] == 0).all()
    assert np.isfinite(da).all()
    large = [(x * scale).astype(np.float32) for x, scale in ((M, 1e30), (a, 1), (b, 1))]
    assert all(np.isfinite(x).all() for x in run(*large, iterations=7))


GOOD = np.ones((2, 4, 3))


def test_arguments_of_the_wrong_kind():
    refuse = functools.partial(refuses, rules.sinkhorn, epsilon=0.1, iterations=2)
    refuse("the costs M must have shape (batch, n, m), n, m ≥ 1, got float64 (2, 3)", GOOD[:, 0])
    refuse("a must have shape (2, 4) (a weight for each point), got float64 (2, 3)", GOOD, GOOD[:, 0])
    refuse("b must have shape (2, 3) …, got float64 (2, 4)", GOOD, None, GOOD[:, :, 0])
    refuses(rules.sinkhorn, "epsilon must be a positive number, got 0", GOOD, epsilon=0, iterations=2)
    refuses(rules.sinkhorn, "iterations must be a positive integer, got 0", GOOD, epsilon=1.0, iterations=0)
    refuse("residuals must be 'save' or 'recompute', got 'mask'", GOOD, residuals="mask")


def test_vectors_are_kept_and_no_kernels():
    """Both passes of 50 iterations hold less than ten matrices of the costs' size; autodiff of the loop keeps 100."""
    M = jax.ShapeDtypeStruct((1, 64, 64), np.float32)
    compiled = run.lower(M, epsilon=0.5, iterations=50).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * 4 * 64 * 64
    kept = jax.eval_shape(functools.partial(rules.sinkhorn_forward, epsilon=0.5, iterations=50), M)[1]
    assert (kept.U.shape, kept.V.shape) == ((1, 50, 64), (1, 50, 64))
    loss = layers.sinkhorn(epsilon=0.5, iterations=50, residuals="recompute")
    assert jax.eval_shape(loss.forward, M, layers.TransportTarget())[1][3:] == (None, None)


def test_a_large_cost_over_epsilon_leaves_the_digits():
    """The kernel's columns and rows sum to 1 whatever f / ε is rounded to: dM has the error that autodiff has."""
    M = RNG.uniform(0, 2e5, (8, 4, 3)).astype(np.float32)
    dM = run(M, iterations=3)[1]
    exact = run(M.astype(np.float64), iterations=3)[1]
    assert np.abs(dM - exact).max() < 1e-6
    np.testing.assert_allclose(np.asarray(dM).sum((1, 2)), 1, rtol=1e-6)  # a constant added to M is added to C
