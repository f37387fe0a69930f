"""Normalization of each example over its tokens or space: groups of features together, or every feature alone."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_cotangent, check_count, check_residuals, describe
from handgrad.factors import Hadamard, Total
from handgrad.rule import Rule
from handgrad.rules.normalization._norms import (
    Features,
    Policy,
    Rows,
    centered_slope,
    check_norm,
    kept,
    parameter_factors,
    promoted,
    recall,
    scale_and_shift,
    standardize,
)

__all__ = [
    "GroupNormResiduals",
    "InstanceNormResiduals",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
]


class GroupNormResiduals(NamedTuple):
    """One array of X's size, a number for each example and group, and the parameters.

    Attributes:
      X: the input under "recompute", otherwise None.
      A: the normalized input X̂ in X's dtype under "save", otherwise None.
      R: 1 / √(variance + eps), (batch, 1, ..., groups, 1), float32 at least.
      gamma: scale, or None.
      beta: shift, or None: whether there is a dbeta, and in which dtype.
    """

    X: Rows | None
    A: Rows | None
    R: Float[Array, "batch *ones groups 1"]
    gamma: Features | None
    beta: Features | None


def group_norm_forward(
    X: Rows,
    gamma: Features | None = None,
    beta: Features | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
    residuals: Policy = "save",
) -> tuple[Rows, GroupNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ has mean 0 and variance 1 over each example's tokens and each group's features.

    X̂ = (X − mean) / √(variance + eps). A group is n / groups features side by side. Y is in the promoted dtype of X,
    gamma and beta.

    Args:
      gamma, beta: scale and shift, or None.
      groups: how many groups; divides n.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Derivation: docs/derivations/normalization/group_norm.md (Wu and He, 2018)
    """
    check_norm("group_norm_forward", X, gamma, beta, eps, residuals)
    check_count("group_norm_forward", "groups", groups)
    if X.shape[-1] % groups:
        raise InputError(f"group_norm_forward: X must have a multiple of {groups} (groups) features, got {describe(X)}")
    grouped = _in_groups(X, groups)
    A, _, _, R = standardize(grouped, _of_a_group(grouped.ndim), eps)
    A = A.reshape(X.shape)
    return scale_and_shift(A, gamma, beta, X), GroupNormResiduals(*kept(X, A, residuals), R, gamma, beta)


def group_norm_backward(
    residuals: GroupNormResiduals, dY: Rows, *, groups: int, eps: float = 1e-5
) -> tuple[Rows, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over each group
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Derivation: docs/derivations/normalization/group_norm.md
    """
    X, A, R, gamma, beta = check_residuals("group_norm_backward", residuals, GroupNormResiduals)
    axes = _of_a_group(R.ndim)
    X, A = (None if a is None else _in_groups(a, groups) for a in (X, A))
    grouped = recall(X, A, R, axes)
    A = grouped.reshape(*grouped.shape[:-2], math.prod(grouped.shape[-2:]))
    check_cotangent("group_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    of_groups = gamma if gamma is None else gamma.reshape(grouped.shape[-2:])
    dX = centered_slope(grouped, _in_groups(dY, groups), of_groups, R, axes).reshape(A.shape)
    return dX.astype(A.dtype), *parameter_factors(A, dY, gamma, beta)


group_norm = Rule(group_norm_forward, group_norm_backward)


class InstanceNormResiduals(NamedTuple):
    """One array of X's size, a number for each example and feature, and the parameters.

    Attributes:
      X: the input under "recompute", otherwise None.
      A: the normalized input X̂ in X's dtype under "save", otherwise None.
      R: 1 / √(variance + eps), (batch, 1, ..., n), float32 at least.
      gamma: scale, or None.
      beta: shift, or None: whether there is a dbeta, and in which dtype.
    """

    X: Rows | None
    A: Rows | None
    R: Float[Array, "batch *ones n"]
    gamma: Features | None
    beta: Features | None


def instance_norm_forward(
    X: Rows,
    gamma: Features | None = None,
    beta: Features | None = None,
    *,
    eps: float = 1e-5,
    residuals: Policy = "save",
) -> tuple[Rows, InstanceNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ has mean 0 and variance 1 over the tokens, for each example and feature alone.

    X̂ = (X − mean) / √(variance + eps): group norm with groups of one feature. X has three axes at least.

    Args:
      gamma, beta: scale and shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Derivation: docs/derivations/normalization/group_norm.md (Ulyanov, Vedaldi and Lempitsky, 2016)
    """
    check_norm("instance_norm_forward", X, gamma, beta, eps, residuals)
    if X.ndim < 3:
        raise InputError(f"instance_norm_forward: X must have shape (batch, tokens, ..., features), got {describe(X)}")
    A, _, _, R = standardize(X, _between(X.ndim), eps)
    return scale_and_shift(A, gamma, beta, X), InstanceNormResiduals(*kept(X, A, residuals), R, gamma, beta)


def instance_norm_backward(
    residuals: InstanceNormResiduals, dY: Rows, *, eps: float = 1e-5
) -> tuple[Rows, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over the tokens
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Derivation: docs/derivations/normalization/group_norm.md
    """
    X, A, R, gamma, beta = check_residuals("instance_norm_backward", residuals, InstanceNormResiduals)
    axes = _between(R.ndim)
    A = recall(X, A, R, axes)
    check_cotangent("instance_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, dY, gamma, R, axes).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


instance_norm = Rule(instance_norm_forward, instance_norm_backward)


def _in_groups(X: Rows, groups: int) -> Float[Array, "batch *rest groups m"]:
    """(batch, ..., n) as (batch, ..., groups, n / groups)."""
    return jnp.reshape(X, (*X.shape[:-1], groups, X.shape[-1] // groups))


def _of_a_group(ndim: int) -> tuple[int, ...]:
    """The axes of (batch, ..., groups, n / groups) that a mean runs over: all but the example's and the group's."""
    return (*range(1, ndim - 2), ndim - 1)


def _between(ndim: int) -> tuple[int, ...]:
    """The axes of tokens or space."""
    return tuple(range(1, ndim - 1))
