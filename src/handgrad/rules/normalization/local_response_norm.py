"""Local response norm: each feature over a power of the squares of its neighbors."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_cotangent, check_count, check_positive, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = [
    "LocalResponseNormResiduals",
    "local_response_norm",
    "local_response_norm_backward",
    "local_response_norm_forward",
]

Rows = Float[Array, "batch *rest n"]


class LocalResponseNormResiduals(NamedTuple):
    """X, the input: sums and powers are recomputed."""

    X: Rows


def local_response_norm_forward(
    X: Rows, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Rows, LocalResponseNormResiduals]:
    """Y = X ∘ S^(−β), S = k + (α / size) (X ∘ X) B, B of ones where two features are neighbors.

    Args:
      size: how many neighbors, the feature itself among them: ⌊size / 2⌋ before it, the others behind.
      alpha, beta, k: α, β, k > 0, by default as in PyTorch. (Krizhevsky et al. don't divide α by size.)
    Derivation: docs/derivations/normalization/local_response_norm.md (Krizhevsky et al. 2012)
    """
    _check("local_response_norm_forward", X, size, alpha, beta, k)
    U, c, T = _scaled(X, size, alpha, k)
    return (U * c ** (1 - 2 * beta) * T**-beta).astype(X.dtype), LocalResponseNormResiduals(X)


def local_response_norm_backward(
    residuals: LocalResponseNormResiduals,
    dY: Rows,
    *,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> tuple[Rows]:
    """Pull dY back through Y = X ∘ S^(−β).

        dX = dY ∘ S^(−β) − (2 α β / size) X ∘ ((dY ∘ Y / S) Bᵀ)

    Derivation: docs/derivations/normalization/local_response_norm.md
    """
    (X,) = check_residuals("local_response_norm_backward", residuals, LocalResponseNormResiduals)
    _check("local_response_norm_backward", X, size, alpha, beta, k)
    check_cotangent("local_response_norm_backward", dY, X.shape, X.dtype)
    Xw, dYw = wide(X, dY)
    U, c, T = _scaled(X, size, alpha, k)
    direct = dYw * (c ** (-2 * beta) * T**-beta)
    Q = direct * U / T  # dY ∘ Y / S, times c: x / c is 1 at most
    behind, before = size - 1 - size // 2, size // 2
    pairs = zip(_neighbors(Q, behind, before, 0), _neighbors(c, behind, before, 1), strict=True)
    return ((direct - 2 * alpha * beta / size * sum(Xw / c_i * q for q, c_i in pairs)).astype(X.dtype),)


local_response_norm = Rule(local_response_norm_forward, local_response_norm_backward)


def _scaled(X: Rows, size: int, alpha: float, k: float) -> tuple[Rows, Rows, Rows]:
    """U = X / c, c and T = S / c², c being the largest of a feature's neighbors, 1 at least: squares don't overflow."""
    (Xw,) = wide(X)
    before, behind = size // 2, size - 1 - size // 2
    c = jnp.ones_like(Xw)
    for neighbor in _neighbors(jnp.abs(jax.lax.stop_gradient(Xw)), before, behind, 0):
        c = jnp.maximum(c, neighbor)
    T = k / c / c
    for neighbor in _neighbors(Xw, before, behind, 0):
        T += alpha / size * (neighbor / c) ** 2
    return Xw / c, c, T


def _neighbors(A: Rows, before: int, behind: int, fill: float) -> Iterator[Rows]:
    """For every feature the neighbor at each distance, −before … behind, `fill` where there is none."""
    n = A.shape[-1]
    A = jnp.pad(A, [(0, 0)] * (A.ndim - 1) + [(before, behind)], constant_values=fill)
    return (A[..., i : i + n] for i in range(before + behind + 1))


def _check(where: str, X: Array, size: int, alpha: float, beta: float, k: float) -> None:
    check_array(where, "X", X, min_ndim=2)
    check_count(where, "size", size)
    for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
        check_positive(where, name, value)
