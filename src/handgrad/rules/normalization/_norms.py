"""The steps that every norm takes, over whatever axes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import as_row, check_array, check_choice, check_positive, check_shape
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator

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


class Standardized(NamedTuple):
    """X̂ and what it was made with.

    Attributes:
      A: X̂ = (X − mean) / √(variance + eps), float32 at least.
      mean, variance: over axes that stay; a variance that doesn't fit is infinite.
      R: 1 / √(variance + eps), which fits.
    """

    A: Array
    mean: Array
    variance: Array
    R: Array


def standardize(X: Array, axes: int | Sequence[int], eps: float) -> Standardized:
    """X̂ over some axes.

    In two passes: the mean of the squares minus the square of the mean would lose every digit where the mean is large.
    What the first pass's mean missed comes with the second, and corrects both (Chan, Golub and LeVeque, 1983).
    """
    shrink = shrinking(X, eps)
    mean, deviations, missed = _deviations(X, axes)
    square = jnp.mean(jnp.square(deviations * shrink), axes, keepdims=True)
    variance = jnp.maximum(square - jnp.square(missed * shrink), 0)  # shrunk twice
    R = reciprocal_root(variance, eps, shrink)
    return Standardized((deviations - missed) * R, mean + missed, variance / shrink / shrink, R)


def recall(X: Any, A: Any, R: Array, axes: int | Sequence[int]) -> Array:
    """X̂ in X's dtype: the A that was kept, or computed again from the X that was kept."""
    if A is not None:
        return A
    _, deviations, missed = _deviations(X, axes)
    return ((deviations - missed) * R).astype(promoted(X))


def shrinking(X: Array, eps: float) -> float:
    """A power of two that numbers are multiplied with where they are squared, so that large squares fit.

    The smallest one with which a square that underflows is nothing beside eps: 2⁻⁴² in float32 with eps = 1e-5, and n
    squares of numbers up to 8 · 10³¹ / √n add up to a number that fits.
    """
    info = jnp.finfo(accumulator(X))
    least = math.log2(float(info.tiny)) - math.log2(float(info.eps)) - math.log2(eps) + 1
    return 2.0 ** min(0, math.ceil(least / 2))


def _deviations(X: Array, axes: int | Sequence[int]) -> tuple[Array, Array, Array]:
    """The mean, X − mean, and what the mean missed: it is rounded to its own size, not to that of the deviations."""
    X = X.astype(accumulator(X))
    mean = jnp.mean(X, axes, keepdims=True)
    deviations = X - mean
    missed = jnp.mean(deviations, axes, keepdims=True)
    return mean, deviations, missed


def reciprocal_root(square: Array, eps: float, shrink: float = 1.0) -> Array:
    """1 / √(square / shrink² + eps): of the quotient unless it overflows, as autodiff of so small a root would."""
    variance = square / shrink / shrink
    of_large = shrink * jax.lax.rsqrt(square + eps * shrink**2)
    return jnp.where(variance < jnp.inf, jax.lax.rsqrt(variance + eps), jax.lax.stop_gradient(of_large))


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


def centered_slope(A: Array, G: Array, R: Array, axes: int | Sequence[int]) -> Array:
    """R ∘ (G − mean(G) − X̂ ∘ mean(G ∘ X̂)): the cotangent of X from the cotangent G of X̂ = A."""
    means = jnp.mean(G, axes, keepdims=True) + A * jnp.mean(G * A, axes, keepdims=True)
    return R * (G - means)


def parameter_factors(
    A: Array, dY: Array, gamma: Array | None, beta: Array | None
) -> tuple[Hadamard | None, Total | None]:
    """dγ and dβ; None for a parameter that is not there."""
    dgamma = None if gamma is None else Hadamard(A, dY, gamma.dtype)
    return dgamma, None if beta is None else Total(dY, beta.dtype)
