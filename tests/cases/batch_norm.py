"""Rows of rules/batch_norm.py."""

import jax.numpy as jnp

from cases.case import Case, normal
from cases.normalization import affine
from handgrad import layers


def batch_norm(X, gamma=None, beta=None, eps=1e-5):
    rows = X.reshape(-1, X.shape[-1])
    rows = (rows - jnp.mean(rows, 0, keepdims=True)) / jnp.sqrt(jnp.var(rows, 0, keepdims=True) + eps)
    return affine(rows.reshape(X.shape), gamma, beta)


def batch_norm_inference(X, gamma, beta, mean, variance, eps=1e-5):
    mean, variance = jnp.broadcast_to(mean, X.shape), jnp.broadcast_to(variance, X.shape)
    return affine((X - mean) / jnp.sqrt(variance + eps), gamma, beta)


def of_large_mean(rng):
    """Features of mean 1000, and one without variance."""
    X = 1e3 + rng.standard_normal((6, 3))
    X[:, 1] = 2.0
    return X, rng.standard_normal(3), rng.standard_normal(3)


def given(*shape, scale=True):
    """Inputs beside statistics that are not theirs."""

    def draw(rng):
        n = shape[-1]
        gamma, beta = (rng.standard_normal(n), rng.standard_normal(n)) if scale else (None, None)
        return rng.standard_normal(shape), gamma, beta, rng.standard_normal(n), rng.uniform(0.2, 3, n)

    return draw


CASES = [
    Case("batch_norm", "rows", normal((5, 4), (4,), (4,), scale=2.0), batch_norm),
    Case(
        "batch_norm", "images-recompute", normal((2, 3, 2, 3), (3,)), batch_norm, {"eps": 0.1, "residuals": "recompute"}
    ),
    Case("batch_norm", "large-mean", of_large_mean, batch_norm),
    Case("batch_norm", "tokens-no-scale", normal((3, 2, 1)), batch_norm),
    Case("batch_norm_inference", "rows", given(5, 4), batch_norm_inference),
    Case("batch_norm_inference", "images", given(1, 2, 1, 3), batch_norm_inference, {"eps": 0.1}),
    Case("batch_norm_inference", "no-scale", given(3, 2, scale=False), batch_norm_inference),
    Case("batch_norm_inference", "empty", given(0, 2), batch_norm_inference),
]


LAYERS = {
    "batch_norm": layers.batch_norm,
    "batch_norm_inference": lambda: layers.batch_norm_inference(jnp.zeros(3), jnp.ones(3)),
}
