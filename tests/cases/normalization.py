"""Rows of rules/normalization.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, fixed, normal
from handgrad import layers


def affine(A, gamma, beta):
    A = A if gamma is None else A * jnp.broadcast_to(gamma, A.shape)
    return A if beta is None else A + jnp.broadcast_to(beta, A.shape)


def layer_norm(X, gamma=None, beta=None, eps=1e-5):
    mean, variance = jnp.mean(X, -1, keepdims=True), jnp.var(X, -1, keepdims=True)
    return affine((X - mean) / jnp.sqrt(variance + eps), gamma, beta)


def rms_norm(X, gamma=None, eps=1e-6):
    return affine(X / jnp.sqrt(jnp.mean(X**2, -1, keepdims=True) + eps), gamma, None)


def of_large_mean(rng):
    """Rows of mean 1000, and a row without variance."""
    X = 1e3 + rng.standard_normal((4, 5))
    X[2] = 2.0
    return X, rng.standard_normal(5), rng.standard_normal(5)


def with_a_row_of_zeros(rng):
    X = 1e3 * rng.standard_normal((3, 4))
    X[1] = 0.0
    return X, rng.standard_normal(4)


CASES = [
    Case("layer_norm", "rows", normal((5, 4), (4,), (4,), scale=2.0), layer_norm),
    Case("layer_norm", "tokens-recompute", normal((3, 2, 4), (4,)), layer_norm, {"eps": 0.1, "residuals": "recompute"}),
    Case("layer_norm", "large-mean", of_large_mean, layer_norm),
    Case("layer_norm", "no-scale", lambda rng: (rng.standard_normal((1, 3)), None, rng.standard_normal(3)), layer_norm),
    Case("layer_norm", "one-feature", fixed(np.array([[2.0], [-1.0]]), [1.5], [0.5]), layer_norm),
    Case("rms_norm", "rows", normal((5, 4), (4,), scale=2.0), rms_norm),
    Case("rms_norm", "tokens-recompute", normal((3, 2, 4), (4,)), rms_norm, {"eps": 0.1, "residuals": "recompute"}),
    Case("rms_norm", "zeros-and-1e3", with_a_row_of_zeros, rms_norm),
    # dX = dY eps / √(x² + eps)³ is a difference of nearly equal numbers where eps is small, in any form.
    Case("rms_norm", "no-scale-one-feature", normal((2, 1)), rms_norm, {"eps": 0.5}),
]


LAYERS = {op: getattr(layers, op) for op in ("layer_norm", "rms_norm")}
