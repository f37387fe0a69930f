"""Norms: jax.nn's own, and a few lines of jax.numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Arrays, Entry, normal


def affine(A: Any, gamma: Any, beta: Any) -> Any:
    """A γ + β."""
    A = A if gamma is None else A * jnp.broadcast_to(gamma, A.shape)
    return A if beta is None else A + jnp.broadcast_to(beta, A.shape)


def layer_norm(X: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5) -> Any:
    """jax.nn's standardize, along the last axis."""
    return affine(jax.nn.standardize(X, axis=-1, epsilon=eps), gamma, beta)


def rms_norm(X: Any, gamma: Any = None, eps: float = 1e-6) -> Any:
    """X over its root mean square."""
    return affine(X / jnp.sqrt(jnp.mean(X**2, axis=-1, keepdims=True) + eps), gamma, None)


def group_norm(X: Any, gamma: Any = None, beta: Any = None, groups: int = 1, eps: float = 1e-5) -> Any:
    """jax.nn's standardize, one group after the other."""
    axes = tuple(range(1, X.ndim))
    parts = [jax.nn.standardize(part, axis=axes, epsilon=eps) for part in jnp.split(X, groups, axis=-1)]
    return affine(jnp.concatenate(parts, axis=-1), gamma, beta)


def instance_norm(X: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5) -> Any:
    """jax.nn's standardize, over tokens."""
    return affine(jax.nn.standardize(X, axis=tuple(range(1, X.ndim - 1)), epsilon=eps), gamma, beta)


def batch_norm(X: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5) -> Any:
    """jax.nn's standardize, over examples and tokens."""
    return affine(jax.nn.standardize(X, axis=tuple(range(X.ndim - 1)), epsilon=eps), gamma, beta)


def batch_norm_inference(X: Any, gamma: Any, beta: Any, mean: Any, variance: Any, eps: float = 1e-5) -> Any:
    """jax.nn's standardize, with given statistics."""
    mean, variance = jnp.broadcast_to(mean, X.shape), jnp.broadcast_to(variance, X.shape)
    return affine(jax.nn.standardize(X, mean=mean, variance=variance, epsilon=eps), gamma, beta)


def given(rng: np.random.Generator) -> Arrays:
    """Inputs, parameters, and statistics that are not theirs."""
    gamma, beta, mean = (rng.standard_normal(4) for _ in range(3))
    return rng.standard_normal((3, 2, 4)), gamma, beta, mean, rng.uniform(0.2, 3, 4)


NORMALIZATION = [
    Entry("layer_norm", "rows", normal((5, 7), (7,), (7,)), layer_norm),
    Entry("layer_norm", "tokens", normal((3, 2, 4), (4,)), layer_norm, {"eps": 0.1, "residuals": "recompute"}),
    Entry("rms_norm", "rows", normal((5, 7), (7,)), rms_norm),
    Entry("rms_norm", "tokens", normal((3, 2, 4), (4,)), rms_norm, {"eps": 0.1, "residuals": "recompute"}),
    Entry("group_norm", "tokens", normal((3, 2, 6), (6,), (6,)), group_norm, {"groups": 2}),
    Entry("instance_norm", "tokens", normal((2, 5, 3), (3,), (3,)), instance_norm),
    Entry("batch_norm", "rows", normal((5, 7), (7,), (7,)), batch_norm),
    Entry("batch_norm", "images", normal((2, 3, 2, 3), (3,)), batch_norm, {"residuals": "recompute"}),
    Entry("batch_norm_inference", "tokens", given, batch_norm_inference),
]
