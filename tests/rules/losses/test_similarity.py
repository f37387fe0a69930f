"""Similarity losses: equivalent forms, vectors of any length, sure queries, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import optimized_jit
from precision import against, autodiff, cotangents, grid, over_the_whole_range
from rules.losses.rows import assert_edges, both, outcomes, subject
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((2, 4, 5))
DC = np.array([1.0, -2.0, 0.5, 0.25])


def scaled(dtype):
    """Two vectors, one of any length: (batch, 3)."""
    s, t = against(grid(dtype), [1.0, 1e30, -1e-3], dtype=np.float64)
    inputs = s[:, None] * np.array([[1.0, 0.5, -2.0]]) / 4, t[:, None] * np.array([[0.5, 3.0, 1.0]])
    return (*(a.astype(dtype) for a in inputs), cotangents(s.shape, dtype))


def nearly_parallel(dtype):
    """(1, t, 0) beside (1, 0, 0) and (3, 0, 0)."""
    t, r = against(grid(dtype), [1.0, 3.0], dtype=dtype)
    none = np.zeros_like(t)
    return np.stack([none + 1, t, none], 1), np.stack([r, none, none], 1), cotangents(t.shape, dtype)


def norm(x):
    return np.linalg.norm(x, axis=1, keepdims=True)


def cosine_distance(a, y, d):
    (u, long), (v, _) = ((x / np.maximum(r, 1e-8), r > 1e-8) for x, r in ((a, norm(a)), (y, norm(y))))
    cosine = (u * v).sum(1, keepdims=True)
    of_a = np.where(long, (v - cosine * u) / np.where(long, norm(a), 1), v / 1e-8)
    of_y = (u - cosine * v) / norm(y)
    return 1 - cosine[:, 0], -d[:, None] * of_a, -d[:, None] * of_y


def nearly_zero(a, y, d):
    """The same of (1, t, 0) and (r, 0, 0): cos = 1 / √(1 + t²)."""
    t, h = a[:, 1], np.hypot(1, a[:, 1])
    none = np.zeros_like(t)
    of_a = np.stack([(t / h) * (t / h) / h, -t / h / h / h, none], 1)
    of_y = np.stack([none, t / h, none], 1) / y[:, :1]
    return (t / h) * (t / (1 + h)), -d[:, None] * of_a, -d[:, None] * of_y


def one_over(i, elements=(1, 1, 1)):
    """|d| over the length of an argument: what its direction, rounded, moves these elements of a cotangent by."""
    return lambda *inputs: np.abs(inputs[2][:, None]) / np.maximum(norm(inputs[i]), 1e-8) * np.array([elements])


def cosine(name, inputs, truth, elements, **bars):
    moved = {"dA": one_over(0, elements), "dY": one_over(1, elements)}
    return subject("cosine_distance", truth, inputs, name=name, bars=bars, moved=moved)


SUBJECTS = [
    cosine("lengths", scaled, cosine_distance, (1, 1, 1), C=4),
    cosine("parallel", nearly_parallel, nearly_zero, (1, 0, 0)),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_edges():
    assert_edges(
        zero_times_infinity=[("cosine_distance", [[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]])],
        weightless=[("cosine_distance", [[np.nan, 1.0]], [[1.0, 0.0]])],
        far=[("cosine_distance", [[1.0, -1.0, 0.5]], [[2.0, 1.0, 1.0]])],
        far_targets=True,
    )


def test_cosine_distance_knows_directions_alone():
    pairs = (A, Y), (3 * A, Y / 7), (A, 2 * A), (A, -A)
    (C, dA, dY), (scaled, *_), (same, *_), (opposite, *_) = outcomes([("cosine_distance", *of) for of in pairs], DC)
    np.testing.assert_allclose(scaled, C, rtol=1e-13)
    np.testing.assert_allclose([(dA * A).sum(1), (dY * Y).sum(1), same], np.zeros((3, 4)), atol=1e-15)
    np.testing.assert_allclose(opposite, np.full(4, 2.0), rtol=1e-15)
    np.testing.assert_allclose(C, optimized_jit(optax.losses.cosine_distance)(A, Y), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["cosine_distance", "info_nce"])
def test_vectors_of_zeros(op, dtype):
    """Cosine 0 with everything, and a finite gradient; jax.grad of our own forward agrees."""
    a, y, dC = A.astype(dtype), Y.astype(dtype), DC.astype(dtype)
    a[0], y[1] = 0, 0

    @optimized_jit
    def run(a, y):
        return both(op, a, y, dC=dC), autodiff(lambda a, y: getattr(rules, op).forward(a, y)[0])(a, y, dC)

    found, expected = run(a, y)
    assert all(np.isfinite(c).all() for c in found)
    if op == "cosine_distance":
        assert found[0][:2].tolist() == [1, 1]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=3e-5 if dtype == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_info_nce_is_the_cross_entropy_of_similarities(normalize):
    """By both policies, of which one keeps the batch × batch matrix; of one query there is nothing to tell apart."""
    U, V = (a / norm(a) if normalize else a for a in (A, Y))
    options = {"temperature": 0.5, "normalize": normalize}
    both_policies = [("info_nce", A, Y, {**options, "residuals": policy}) for policy in ("save", "recompute")]
    of_matrix = "softmax_cross_entropy", U @ V.T / 0.5, np.arange(4)
    (C, dA, dY), recomputed, (expected, dS, *_) = outcomes([*both_policies, of_matrix], DC)
    jax.tree.map(np.testing.assert_array_equal, (C, dA, dY), recomputed)
    np.testing.assert_allclose(C, expected, rtol=1e-13)
    if not normalize:
        np.testing.assert_allclose(dA, dS @ Y / 0.5, rtol=1e-12)
        np.testing.assert_allclose(dY, dS.T @ A / 0.5, rtol=1e-12)
    for policy in ("save", "recompute"):
        _, residuals = jax.eval_shape(functools.partial(rules.info_nce_forward, residuals=policy, **options), A, Y)
        assert (residuals.L is None) == (policy == "recompute")
    assert all((a == 0).all() for a in outcomes([("info_nce", A[:1], Y[:1], options)])[0])


def test_info_nce_of_queries_that_know_their_keys():
    """Similarities gap I: P − I is made of 1 / (e^gap + 2) without a difference, in float32 too."""
    gaps, options = (0.0, 4.0, 16.0, 64.0), {"temperature": 1.0, "normalize": False}
    vectors = [np.sqrt(gap) * np.eye(3, dtype=np.float32) for gap in gaps]
    for gap, (C, *of_sides) in zip(gaps, outcomes([("info_nce", V, V, options) for V in vectors]), strict=True):
        np.testing.assert_allclose(C, np.full(3, np.log1p(2 * np.exp(-gap))), rtol=2e-6)
        expected = np.sqrt(gap) * (1 - 3 * np.eye(3)) / (np.exp(gap) + 2)
        for found in of_sides:
            np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_info_nce_of_a_sure_query():
    """p − 1 of the query's own key, where p rounds to 1 in float32."""
    A, Y = np.eye(3, dtype=np.float32), np.array([[1, 0.1, 0], [0.2, 1, 0], [0, 0, 1]], np.float32)

    def plain(A, Y, temperature):
        U, V = (X / jnp.linalg.norm(X, axis=1, keepdims=True) for X in (A, Y))
        S = U @ V.T / temperature
        others = jnp.where(jnp.eye(3, dtype=bool), -jnp.inf, S - jnp.diagonal(S)[:, None])
        return jnp.log1p(jnp.exp(others).sum(1))

    wide = A.astype(np.float64), Y.astype(np.float64), np.ones(3)
    temperatures = 0.05, 0.02
    outcome = outcomes([("info_nce", A, Y, {"temperature": t}) for t in temperatures])
    for t, found in zip(temperatures, outcome, strict=True):
        for one, truth in zip(found, autodiff(functools.partial(plain, temperature=t))(*wide), strict=True):
            assert np.abs(one.astype(np.float64) - truth).max() <= 1e-4 * np.abs(truth).max()


def test_bad_input():
    like = "must have shape (4, 5) like the"
    refuses(rules.cosine_distance, f"the target Y {like} prediction A, got float64 (4, 1)", A, Y[:, :1])
    refuses(rules.info_nce, f"the keys Y {like} queries A, got float64 (3, 5)", A, Y[:3])
    refuses(rules.cosine_distance, "the prediction A must have shape (batch, …got float64 (5,)", A[0], Y[0])
    refuses(rules.cosine_distance, "epsilon must be a positive number, got -1.0", A, Y, epsilon=-1.0)
    refuses(rules.info_nce, "the keys Y must have a floating-point dtype, got int64 (4, 5)", A, A.astype(int))
    refuses(
        rules.info_nce,
        "the queries A must have shape (batch, n), one query at least, got float64 (1, 4, 5)",
        A[None],
        Y,
    )
    refuses(rules.info_nce, "temperature must be a positive number, got 0", A, Y, temperature=0)
    refuses(rules.info_nce, "residuals must be 'save' or 'recompute', got 'mask'", A, Y, residuals="mask")
