"""The steps that every norm takes, over whatever axes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import as_row, check_array, check_choice, check_positive, check_shape
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator

Rows = Float[Array, "batch *rest n"]
Features = Float[Array, " n"]
Shrunk = Float[Array, "..."]  # an array whose means were taken over some axes, which stay with size 1
Axes = int | Sequence[int]
Policy = Literal["save", "recompute"]


def check_norm(
    where: str, X: Rows, gamma: Features | None, beta: Features | None, eps: float, residuals: Policy = "save"
) -> None:
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
      mean, variance: over axes that stay; a variance that overflows is infinite.
      R: 1 / √(variance + eps), finite all the same.
    """

    A: Float[Array, "..."]
    mean: Shrunk
    variance: Shrunk
    R: Shrunk


def standardize(X: Float[Array, "..."], axes: Axes, eps: float) -> Standardized:
    """X̂ over some axes.

    In two passes: the mean of the squares minus the square of the mean would lose every digit where the mean is large.
    The second pass also computes the first one's error in the mean, and corrects both statistics (the corrected
    two-pass algorithm: Chan, Golub and LeVeque, 1983).
    """
    shrink = shrinking(X, eps)
    mean, deviations, missed = _deviations(X, axes)
    shrunk = deviations * shrink
    square = jnp.mean(jnp.square(shrunk), axes, keepdims=True)
    variance = jnp.maximum(square - jnp.square(jnp.mean(shrunk, axes, keepdims=True)), 0)  # shrunk twice
    R = reciprocal_root(variance, eps, shrink)
    return Standardized((deviations - missed) * R, mean + missed, variance / shrink / shrink, R)


def kept(X: Rows, A: Rows, residuals: Policy) -> tuple[Rows | None, Rows | None]:
    """The residuals (X, None) or (None, X̂ in X's dtype)."""
    return (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))


def recall(X: Float[Array, "..."] | None, A: Float[Array, "..."] | None, R: Shrunk, axes: Axes) -> Float[Array, "..."]:
    """X̂ in X's dtype: the A that was kept, or recomputed from the X that was kept."""
    if A is not None:
        return A
    assert X is not None
    _, deviations, missed = _deviations(X, axes)
    return ((deviations - missed) * R).astype(promoted(X))


def shrinking(X: Float[Array, "..."], eps: float) -> float:
    """A power of two by which numbers are multiplied before they are squared, so that large squares don't overflow.

    The smallest one with which a square that underflows is negligible beside eps: 2⁻⁴² in float32 with eps = 1e-5. The
    squares of n numbers up to 8 · 10³¹ / √n then have a sum that fits.
    """
    info = jnp.finfo(accumulator(X))
    least = math.log2(float(info.tiny)) - math.log2(float(info.eps)) - math.log2(eps) + 1
    return 2.0 ** min(0, math.ceil(least / 2))


def _deviations(X: Float[Array, "*all"], axes: Axes) -> tuple[Shrunk, Float[Array, "*all"], Shrunk]:
    """The mean, X − mean, and the error of the mean, which is rounded to its own size, not to the deviations'."""
    X = X.astype(accumulator(X))
    mean = jnp.mean(X, axes, keepdims=True)
    deviations = X - mean
    missed = jnp.mean(deviations, axes, keepdims=True)
    return mean, deviations, missed


def reciprocal_root(square: Shrunk, eps: float, shrink: float = 1.0) -> Shrunk:
    """1 / √(square / shrink² + eps): of the quotient unless it overflows, as autodiff of so small a root would."""
    variance = square / shrink / shrink
    of_large = shrink * jax.lax.rsqrt(square + eps * shrink**2)
    return jnp.where(variance < jnp.inf, jax.lax.rsqrt(variance + eps), jax.lax.stop_gradient(of_large))


def scale_and_shift(A: Rows, gamma: Features | None, beta: Features | None, X: Rows) -> Rows:
    """A ∘ 1 γᵀ + 1 βᵀ, in the promoted dtype of X and the parameters."""
    Y = scaled(A, gamma)
    Y = Y if beta is None else Y + as_row(beta, A.ndim)
    return Y.astype(promoted(X, gamma, beta))


def scaled(A: Float[Array, "*all"], gamma: Float[Array, "..."] | None) -> Float[Array, "*all"]:
    """A ∘ 1 γᵀ, in float32 at least."""
    A = A.astype(accumulator(A))
    return A if gamma is None else A * jnp.expand_dims(gamma, tuple(range(A.ndim - gamma.ndim)))


def promoted(*arrays: Float[Array, "..."] | None) -> np.dtype:
    """The promoted dtype of the arrays that are not None."""
    return jnp.result_type(*(a for a in arrays if a is not None))


def centered_slope(
    A: Float[Array, "*all"], dY: Float[Array, "*all"], gamma: Float[Array, "..."] | None, R: Shrunk, axes: Axes
) -> Float[Array, "*all"]:
    """R ∘ (G − mean(G) − X̂ ∘ mean(G ∘ X̂)): the cotangent of X from that of Y, where G = dY ∘ 1 γᵀ and X̂ = A."""
    dY = dY.astype(accumulator(dY))
    means = scaled_mean(dY, gamma, axes) + A * scaled_mean(A * dY, gamma, axes)
    return R * (scaled(dY, gamma) - means)


def scaled_mean(B: Float[Array, "*all"], gamma: Float[Array, "..."] | None, axes: Axes) -> Shrunk:
    """mean(B ∘ 1 γᵀ) over some axes; γ has one number for each index of B's last axis, or of the last two.

    First over the axes along which γ repeats. What is left is a sum over features: on CPU a product of a matrix and γ,
    since XLA would write B ∘ 1 γᵀ out to add it up.
    """
    if gamma is None:
        return jnp.mean(B, axes, keepdims=True)
    own, gamma = B.ndim - gamma.ndim, gamma.astype(B.dtype)
    over = {axis % B.ndim for axis in ([axes] if isinstance(axes, int) else axes)}
    if repeated := tuple(axis for axis in sorted(over) if axis < own):
        B = jnp.mean(B, repeated, keepdims=True)
    if gamma.ndim == 1 and not repeated and jax.default_backend() == "cpu":
        return jnp.expand_dims(meshes.einsum("...n,n->...", B, gamma), -1) / B.shape[-1]
    rest = tuple(over.difference(repeated))
    scaled_B = B * jnp.expand_dims(gamma, tuple(range(own)))
    return jnp.mean(scaled_B, rest, keepdims=True) if rest else scaled_B


def parameter_factors(
    A: Rows, dY: Rows, gamma: Features | None, beta: Features | None
) -> tuple[Hadamard | None, Total | None]:
    """dγ and dβ; None for an absent parameter."""
    dgamma = None if gamma is None else Hadamard(A, dY, gamma.dtype)
    return dgamma, None if beta is None else Total(dY, beta.dtype)
