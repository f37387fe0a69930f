"""Normalization beside jax.nn.standardize: layer and RMS norm, batch norm, group and instance norm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Function, Rng, affine, edge, fixed, normal


def layer_norm(X: Array, gamma: Array | None = None, beta: Array | None = None, eps: float = 1e-5) -> Array:
    """Along the last axis."""
    mean, variance = jnp.mean(X, -1, keepdims=True), jnp.var(X, -1, keepdims=True)
    return affine((X - mean) / jnp.sqrt(variance + eps), gamma, beta)


def rms_norm(X: Array, gamma: Array | None = None, eps: float = 1e-6) -> Array:
    """X over its root mean square."""
    return affine(X / jnp.sqrt(jnp.mean(X**2, -1, keepdims=True) + eps), gamma, None)


def batch_norm(X: Array, gamma: Array | None = None, beta: Array | None = None, eps: float = 1e-5) -> Array:
    """Over examples and tokens, flattened to rows."""
    rows = X.reshape(-1, X.shape[-1]).T
    return affine(layer_norm(rows, eps=eps).T.reshape(X.shape), gamma, beta)


def batch_norm_inference(
    X: Array, gamma: Array | None, beta: Array | None, mean: Array, variance: Array, eps: float = 1e-5
) -> Array:
    """With given statistics."""
    mean, variance = jnp.broadcast_to(mean, X.shape), jnp.broadcast_to(variance, X.shape)
    return affine((X - mean) / jnp.sqrt(variance + eps), gamma, beta)


def group_norm(
    X: Array, gamma: Array | None = None, beta: Array | None = None, groups: int = 2, eps: float = 1e-5
) -> Array:
    """Group by group, each flattened to one row for each example."""
    A = [
        layer_norm(part.reshape(part.shape[0], -1), eps=eps).reshape(part.shape)
        for part in jnp.split(X, groups, axis=-1)
    ]
    return affine(jnp.concatenate(A, -1), gamma, beta)


def instance_norm(X: Array, gamma: Array | None = None, beta: Array | None = None, eps: float = 1e-5) -> Array:
    """Feature by feature, tokens moved to the end."""
    rows = jnp.moveaxis(X, -1, 1).reshape(X.shape[0], X.shape[-1], -1)
    return affine(jnp.moveaxis(layer_norm(rows, eps=eps), 1, 2).reshape(X.shape), gamma, beta)


def weight_norm(V: Array, g: Array) -> Array:
    """Each column of V over its root of a sum of squares, times its length."""
    columns = V.reshape(-1, V.shape[-1]).T
    rows = [length * column / jnp.sqrt(jnp.vdot(column, column)) for column, length in zip(columns, g, strict=True)]
    return jnp.stack(rows).T.reshape(V.shape)


def spectral_norm(V: Array, a: Array, b: Array) -> Array:
    """V over the trace of V b aᵀ."""
    M = V.reshape(-1, V.shape[-1])
    return V / jnp.trace(M @ jnp.outer(b, a))


def local_response_norm(X: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """By a dense band of ones."""
    i = np.arange(X.shape[-1])
    band = (i[:, None] - i >= -(size // 2)) & (i[:, None] - i <= size - 1 - size // 2)
    S = k + alpha / size * jnp.einsum("...i,ij->...j", X * X, jnp.asarray(band, X.dtype))
    return X / S**beta


def with_vectors(*shape: int) -> Draw:
    """A weight, and a vector on each side of it, of norm 1."""

    def draw(rng: Rng) -> Arrays:
        vectors = [rng.standard_normal(n) for n in (int(np.prod(shape[:-1])), shape[-1])]
        return rng.standard_normal(shape), *(v / np.linalg.norm(v) for v in vectors)

    return draw


def standardized(axes: Callable[[int], tuple[int, ...]]) -> Function:
    """jax.nn's norm over axes(rank), scaled and shifted."""

    def norm(X: Array, gamma: Array | None = None, beta: Array | None = None, eps: float = 1e-5) -> Array:
        return affine(jax.nn.standardize(X, axis=axes(X.ndim), epsilon=eps), gamma, beta)

    return norm


def of_large_mean(*shape: int) -> Draw:
    """Numbers of mean 1000, of which the last example, and the first feature, have no variance."""

    def draw(rng: Rng) -> Arrays:
        X = 1e3 + rng.standard_normal(shape)
        X[-1] = X[..., 0] = 2.0
        return X, rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])

    return draw


def with_a_row_of_zeros(rng: Rng) -> Arrays:
    """Rows of about 1000, and one of zeros."""
    X = 1e3 * rng.standard_normal((3, 4))
    X[1] = 0.0
    return X, rng.standard_normal(4)


def given(*shape: int, scale: bool = True) -> Draw:
    """Inputs beside statistics that are not theirs."""

    def draw(rng: Rng) -> Arrays:
        n = shape[-1]
        gamma, beta = (rng.standard_normal(n), rng.standard_normal(n)) if scale else (None, None)
        return rng.standard_normal(shape), gamma, beta, rng.standard_normal(n), rng.uniform(0.2, 3, n)

    return draw


def without_scale(rng: Rng) -> Arrays:
    """A shift alone."""
    return rng.standard_normal((1, 4, 3)), None, rng.standard_normal(3)


jax_layer_norm = standardized(lambda rank: (-1,))
jax_batch_norm = standardized(lambda rank: tuple(range(rank - 1)))
jax_instance_norm = standardized(lambda rank: tuple(range(1, rank - 1)))
RESPONSE = {"size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0}
RECOMPUTE = {"eps": 0.1, "residuals": "recompute"}

CASES = [
    Case(rules.layer_norm, "rows", normal((5, 4), (4,), (4,), scale=2.0), layer_norm, peer=jax_layer_norm),
    Case(rules.layer_norm, "tokens", normal((3, 2, 4), (4,)), layer_norm, RECOMPUTE, jax_layer_norm),
    edge(rules.layer_norm, "large-mean", of_large_mean(4, 5), layer_norm),
    edge(rules.layer_norm, "no-scale", without_scale, layer_norm),
    edge(rules.layer_norm, "one-feature", fixed([[2.0], [-1.0]], [1.5], [0.5]), layer_norm),
    Case(rules.rms_norm, "rows", normal((5, 4), (4,), scale=2.0), rms_norm),
    Case(rules.rms_norm, "tokens", normal((3, 2, 4), (4,)), rms_norm, RECOMPUTE),
    edge(rules.rms_norm, "zeros-and-1e3", with_a_row_of_zeros, rms_norm),
    # dX = dY eps / √(x² + eps)³ is a difference of nearly equal numbers where eps is small, in any form.
    edge(rules.rms_norm, "one-feature", normal((2, 1)), rms_norm, {"eps": 0.5}),
    Case(rules.batch_norm, "rows", normal((5, 4), (4,), (4,), scale=2.0), batch_norm, peer=jax_batch_norm),
    Case(rules.batch_norm, "images", normal((2, 3, 2, 3), (3,)), batch_norm, RECOMPUTE, jax_batch_norm),
    edge(rules.batch_norm, "large-mean", of_large_mean(6, 3), batch_norm),
    edge(rules.batch_norm, "tokens-no-scale", normal((3, 2, 1)), batch_norm),
    Case(rules.batch_norm_inference, "tokens", given(3, 2, 4), batch_norm_inference),
    edge(rules.batch_norm_inference, "images", given(1, 2, 1, 3), batch_norm_inference, {"eps": 0.1}),
    edge(rules.batch_norm_inference, "no-scale", given(3, 2, scale=False), batch_norm_inference),
    edge(rules.batch_norm_inference, "empty", given(0, 2), batch_norm_inference),
    Case(rules.group_norm, "tokens", normal((3, 2, 6), (6,), (6,)), group_norm, {"groups": 2}),
    edge(rules.group_norm, "images", normal((2, 3, 2, 3), (3,)), group_norm, {"groups": 1, **RECOMPUTE}),
    edge(rules.group_norm, "rows-no-scale", normal((5, 12)), group_norm, {"groups": 3}),
    edge(rules.group_norm, "large-mean", of_large_mean(2, 5, 4), group_norm, {"groups": 2}),
    Case(rules.instance_norm, "tokens", normal((2, 5, 3), (3,), (3,)), instance_norm, peer=jax_instance_norm),
    edge(rules.instance_norm, "images", normal((2, 3, 2, 3), (3,)), instance_norm, RECOMPUTE),
    edge(rules.instance_norm, "large-mean", of_large_mean(2, 5, 4), instance_norm),
    edge(
        rules.instance_norm,
        "one-feature",
        lambda rng: (rng.standard_normal((1, 4, 1)), None, np.ones(1)),
        instance_norm,
    ),
    Case(rules.weight_norm, "matrix", normal((5, 3), (3,)), weight_norm),
    edge(rules.weight_norm, "kernel", normal((2, 3, 2, 4), (4,)), weight_norm),
    Case(rules.spectral_norm, "matrix", with_vectors(5, 3), spectral_norm),
    edge(rules.spectral_norm, "kernel", with_vectors(2, 3, 2, 4), spectral_norm),
    Case(rules.local_response_norm, "tokens", normal((3, 2, 6), scale=2.0), local_response_norm, RESPONSE),
    edge(rules.local_response_norm, "rows", normal((5, 4)), local_response_norm, {"size": 4, "alpha": 2.0}),
    edge(rules.local_response_norm, "wide", normal((2, 3)), local_response_norm, {"size": 9}),
]
