"""Layer norm: a large mean costs no digits. What holds for every norm is in test_norms.py."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad import rules


def plain(X, gamma, beta):
    """Layer norm by the textbook: two passes, uncorrected."""
    mean = jnp.mean(X, -1, keepdims=True)
    variance = jnp.mean((X - mean) ** 2, -1, keepdims=True)
    return (X - mean) / jnp.sqrt(variance + 1e-5) * jnp.broadcast_to(gamma, X.shape) + jnp.broadcast_to(beta, X.shape)


def test_a_large_mean_costs_no_digits():
    """1000 + normal in float32, where plain two passes lose three digits: see the derivation."""
    rng = np.random.default_rng(0)
    given = 1e3 + rng.standard_normal((16, 64)), *rng.standard_normal((2, 64)), rng.standard_normal((16, 64))
    given = [a.astype(np.float32) for a in given]

    @jax.jit
    def outcome(given, in_float64):
        def of(function, *args):
            *args, dY = args
            Y, pullback = jax.vjp(function, *args)
            return Y, *pullback(dY)

        return of(rules.layer_norm, *given), of(plain, *given), of(plain, *in_float64)

    *found, truth = jax.tree.map(np.asarray, outcome(given, [a.astype(np.float64) for a in given]))
    ours, theirs = ([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(of, truth, strict=True)] for of in found)
    assert max(ours) < 4e-7
    Y, dX, dgamma, _ = theirs
    assert min(Y, dgamma) > 1e-5
    assert dX > 1e-6
