"""Quantization: nearest codes, exact multiples, the papers' gradients, factors, the checker, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, check_right, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, CODES = RNG.standard_normal((3, 4, 2)), RNG.standard_normal((5, 2))
QUICK = {"contracts": False, "transforms": (), "control": False, "differences": False}


def test_nearest_codes_and_factors():
    """Y is a code to its last digit, the nearest; the codebook's factor is each example's; codes see no cotangent of
    Y."""
    weights = np.array([1.0, -2.0, 0.5])
    distances = ((X[..., None, :] - CODES) ** 2).sum(-1)

    @optimized_jit
    def run(X):
        (Y, C), kept = rules.vector_quantize_forward(X, CODES)
        dX, factor = rules.vector_quantize_backward(kept, (jnp.ones_like(Y), weights))
        _, silent = rules.vector_quantize_backward(kept, (jnp.ones_like(Y), 0 * weights))
        return Y, C, dX, factor.sum(), factor.per_example(), silent.sum()

    Y, C, dX, total, each, silent = run(X)
    nearest = CODES[distances.argmin(-1)]
    np.testing.assert_array_equal(Y, nearest)
    np.testing.assert_allclose(C, 1.25 * distances.min(-1).sum(1), rtol=1e-13)
    np.testing.assert_allclose(dX, 1 + 0.5 * weights[:, None, None] * (X - nearest), rtol=1e-13)
    expected = np.zeros((3, 5, 2))
    for b, t in np.ndindex(3, 4):
        expected[b, distances[b, t].argmin()] += 2 * weights[b] * (nearest - X)[b, t]
    assert_same((total, each), (expected.sum(0), expected))
    assert not np.any(silent)


def test_steps_and_their_ends():
    """Whole multiples between the ends; slopes as Esser et al. write them, g aside."""
    x = np.array([[-1.25, -1.0, -0.3, 0.1, 0.75, 2.0]])

    @optimized_jit
    def run(x):
        rule = rules.lsq_quantize.with_options(bits=3, gradient_scale=1.0)
        Y, kept = rule.forward(x, jnp.float64(0.25))
        cotangents = [rule.backward(kept, dY)[1].sum() for dY in np.eye(6)[:, None]]
        default = rules.lsq_quantize_backward(kept, jnp.ones_like(x), bits=3)
        return Y, rule.backward(kept, jnp.ones_like(x))[0], jnp.stack(cotangents), default[1].sum()

    Y, dX, ds, default = run(x)
    assert Y.tolist() == [[-1.0, -1.0, -0.25, 0.0, 0.75, 0.75]]
    assert dX.tolist() == [[0, 0, 1, 1, 0, 0]]
    np.testing.assert_allclose(ds, [-4, -4, -1 + 1.2, -0.4, 3, 3], rtol=1e-14)
    np.testing.assert_allclose(default, ds.sum() / np.sqrt(6 * 3), rtol=1e-14)


def test_the_checker_takes_the_estimators():
    held = jax.lax.stop_gradient

    def of_codes(X, codebook):
        E = codebook[jnp.argmin(jnp.sum((X[..., None, :] - codebook[None, None]) ** 2, -1), -1)]
        C = (E - held(X)) ** 2 + 0.25 * (X - held(E)) ** 2
        return X + held(E - X), jnp.sum(C, (1, 2))

    def of_steps(x, s):
        s = jnp.broadcast_to(held(s) + (s - held(s)) / np.sqrt(8 * 3), x.shape)
        v = jnp.where(x / s <= -4, -4, jnp.where(x / s >= 3, 3, x / s))
        return (v + held(jnp.round(v) - v)) * s

    check_right(hg.check_rule(rules.vector_quantize, X, CODES, reference=of_codes, **QUICK))
    step = np.asarray(0.3)
    check_right(hg.check_rule(rules.lsq_quantize.with_options(bits=3), X, step, reference=of_steps, **QUICK))


def test_bad_input():
    refuse = functools.partial(refuses, rules.vector_quantize)
    refuse("X must have shape (3, 4, 3) to meet the codebook (5, 3), got float64 (3, 4, 2)", X, np.zeros((5, 3)))
    refuse("codebook must have shape (codes, n), at least one code, got float64 (0, 2)", X, CODES[:0])
    refuse("beta must be a positive number, got 0", X, CODES, beta=0)
    refuse = functools.partial(refuses, rules.lsq_quantize)
    refuse("s must have shape (2,) (one for each feature, or one number), got float64 (4,)", X, np.ones(4))
    refuse("bits must be at least 2 for signed numbers, got 1", X, np.ones(2), bits=1)
    refuse("gradient_scale must be a positive number, got 0", X, np.ones(2), gradient_scale=0)
