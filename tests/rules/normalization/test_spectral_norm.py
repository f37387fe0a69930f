"""Spectral norm: power iteration finds the largest singular value, and what is refused."""

import functools

import jax
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
V, DW = RNG.standard_normal((5, 3)), RNG.standard_normal((5, 3))
A, B = RNG.standard_normal(5), RNG.standard_normal(3)


def test_power_iteration():
    """After many steps W's largest singular value is 1, of a V of any size, dV is at right angles to V, and it is the
    gradient of V over its true norm."""

    @jax.jit
    def run(V):
        found = []
        for size in (1.0, 1e200, 1e-200):
            vectors = rules.power_iteration(size * V, A, 200)
            found.append((vectors, passes(rules.spectral_norm, DW, size * V, *vectors)))
        of_norm = jax.grad(lambda V: jax.numpy.vdot(DW, V / jax.numpy.linalg.norm(V, 2)))(V)
        return found, of_norm

    (((a, b), (W, (dV, _, _))), *others), of_norm = run(V)
    U, S, Vt = np.linalg.svd(V)
    np.testing.assert_allclose(np.abs([a @ U[:, 0], b @ Vt[0], a @ V @ b / S[0]]), 1, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(W, 2), 1, rtol=1e-12)
    np.testing.assert_allclose(np.vdot(V, dV), 0, atol=1e-12)
    np.testing.assert_allclose(dV, of_norm, rtol=1e-9, atol=1e-11)
    for _, (same, _) in others:
        np.testing.assert_allclose(same, W, rtol=1e-11)


def test_bad_input():
    refuse = functools.partial(refuses, rules.spectral_norm)
    refuse("V must have shape (batch, ..., features), got float64 (3,)", B, A, B)
    refuse("a must have shape (5,) to meet V (5, 3), got float64 (3,)", V, B, B)
    refuse("b must have shape (3,) to meet V (5, 3), got float64 (5,)", V, A, A)
