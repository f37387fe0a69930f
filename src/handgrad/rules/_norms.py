"""The steps that every norm takes, over whatever axes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.shapes import as_row, check_array, check_choice, check_positive, check_shape

Array = jax.Array


def check_norm(where: str, X: Any, gamma: Any, beta: Any, eps: Any, residuals: str = "save") -> None:
    """X is rows of features, gamma and beta are None or one number for each feature, the options are allowed."""
    check_array(where, "X", X, min_ndim=2)
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter is not None:
            check_array(where, name, parameter)
            check_shape(where, name, parameter, X.shape[-1:], f"to meet X {tuple(X.shape)}")
    check_positive(where, "eps", eps)
    check_choice(where, "residuals", residuals, ("save", "recompute"))


def standardise(X: Array, axes: int | Sequence[int], eps: float) -> tuple[Array, Array, Array]:
    """X̂ = (X − mean) / √(variance + eps), the mean and the variance, over axes that stay; in float32 at least.

    In two passes: the mean of the squares minus the square of the mean would lose every digit where the mean is large.
    What the first pass's mean missed comes with the second, and corrects both (Chan, Golub and LeVeque, 1983).
    """
    mean, deviations, missed = _deviations(X, axes)
    variance = jnp.maximum(jnp.mean(jnp.square(deviations), axes, keepdims=True) - jnp.square(missed), 0)
    return (deviations - missed) * reciprocal_root(variance, eps), mean + missed, variance


def recall(X: Any, A: Any, variance: Array, axes: int | Sequence[int], eps: float) -> Array:
    """X̂ in X's dtype: the A that was kept, or computed again from the X that was kept."""
    if A is not None:
        return A
    _, deviations, missed = _deviations(X, axes)
    return ((deviations - missed) * reciprocal_root(variance, eps)).astype(promoted(X))


def _deviations(X: Array, axes: int | Sequence[int]) -> tuple[Array, Array, Array]:
    """The mean, X − mean, and what the mean missed: it is rounded to its own size, not to that of the deviations."""
    X = X.astype(accumulator(X))
    mean = jnp.mean(X, axes, keepdims=True)
    deviations = X - mean
    missed = jnp.mean(deviations, axes, keepdims=True)
    return mean, deviations, missed


def reciprocal_root(variance: Array, eps: float) -> Array:
    """1 / √(variance + eps)."""
    return jax.lax.rsqrt(variance + eps)


def scale_and_shift(A: Array, gamma: Array | None, beta: Array | None, X: Array) -> Array:
    """A ∘ 1 γᵀ + 1 βᵀ, in the promoted dtype of X and the parameters."""
    Y = scaled(A, gamma)
    Y = Y if beta is None else Y + as_row(beta, A.ndim)
    return Y.astype(promoted(X, gamma, beta))


def scaled(A: Array, gamma: Array | None) -> Array:
    """A ∘ 1 γᵀ, in float32 at least."""
    A = A.astype(accumulator(A))
    return A if gamma is None else A * as_row(gamma, A.ndim)


def promoted(*arrays: Array | None) -> Any:
    """The dtype in which those that are there meet."""
    return jnp.result_type(*(a for a in arrays if a is not None))


def centred_slope(A: Array, G: Array, variance: Array, eps: float, axes: int | Sequence[int]) -> Array:
    """(G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps): the cotangent of X from the cotangent G of X̂ = A."""
    means = jnp.mean(G, axes, keepdims=True) + A * jnp.mean(G * A, axes, keepdims=True)
    return reciprocal_root(variance, eps) * (G - means)


def parameter_factors(
    A: Array, dY: Array, gamma: Array | None, beta: Array | None
) -> tuple[Hadamard | None, Total | None]:
    """dγ and dβ; None for a parameter that is not there."""
    dgamma = None if gamma is None else Hadamard(A, dY, gamma.dtype)
    return dgamma, None if beta is None else Total(dY, beta.dtype)
