"""Normalization of each example over its tokens or space: groups of features together, or every feature alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, check_cotangent, check_count, check_residuals, describe
from handgrad.factors import Hadamard, Total
from handgrad.rules.normalization._norms import (
    centered_slope,
    check_norm,
    parameter_factors,
    promoted,
    recall,
    scale_and_shift,
    scaled,
    standardize,
)
from handgrad.rules.rule import Rule

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

Array = jax.Array


class GroupNormResiduals(NamedTuple):
    """One array of X's size, numbers for each example and group, and the parameters.

    Attributes:
      X: (batch, ..., n) the input itself under "recompute", otherwise None.
      A: (batch, ..., n) the normalized input X̂ in X's dtype under "save", otherwise None.
      R: (batch, 1, ..., groups, 1) the slope 1 / √(variance + eps), float32 at least.
      gamma: (n,) or None.
      beta: (n,) or None: whether there is a dbeta, and in which dtype.
    """

    X: Array | None
    A: Array | None
    R: Array
    gamma: Array | None
    beta: Array | None


def group_norm_forward(
    X: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
    residuals: str = "save",
) -> tuple[Array, GroupNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ has mean 0 and variance 1 over each example's tokens and each group's features.

    X̂ = (X − mean) / √(variance + eps). A group is n / groups features side by side.

    Args:
      X: (batch, ..., n) floating point.
      gamma: (n,) scale, or None.
      beta: (n,) shift, or None.
      groups: how many groups; divides n.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X, gamma and beta; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; groups don't divide n; eps not positive; residuals neither of the two.
    Derivation: docs/derivations/normalization/group_norm.md (Wu and He, 2018)
    """
    check_norm("group_norm_forward", X, gamma, beta, eps, residuals)
    check_count("group_norm_forward", "groups", groups)
    if X.shape[-1] % groups:
        raise InputError(f"group_norm_forward: X must have a multiple of {groups} (groups) features, got {describe(X)}")
    grouped = _in_groups(X, groups)
    A, _, _, R = standardize(grouped, _of_a_group(grouped.ndim), eps)
    A = A.reshape(X.shape)
    kept = (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))
    return scale_and_shift(A, gamma, beta, X), GroupNormResiduals(*kept, R, gamma, beta)


def group_norm_backward(
    residuals: GroupNormResiduals, dY: Array, *, groups: int, eps: float = 1e-5
) -> tuple[Array, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over each group
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Args:
      residuals: GroupNormResiduals of group_norm_forward.
      dY: (batch, ..., n) cotangent of Y.
      groups, eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, (n,); dbeta: Total, (n,); None for a parameter that is not there.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    X, A, R, gamma, beta = check_residuals("group_norm_backward", residuals, GroupNormResiduals)
    axes = _of_a_group(R.ndim)
    grouped = recall(_in_groups(X, groups), _in_groups(A, groups), R, axes)
    A = grouped.reshape(*grouped.shape[:-2], -1)
    check_cotangent("group_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    G = _in_groups(scaled(dY, gamma), groups)
    dX = centered_slope(grouped, G, R, axes).reshape(A.shape)
    return dX.astype(A.dtype), *parameter_factors(A, dY, gamma, beta)


group_norm = Rule(group_norm_forward, group_norm_backward)


class InstanceNormResiduals(NamedTuple):
    """One array of X's size, numbers for each example and feature, and the parameters.

    Attributes:
      X: (batch, ..., n) the input itself under "recompute", otherwise None.
      A: (batch, ..., n) the normalized input X̂ in X's dtype under "save", otherwise None.
      R: (batch, 1, ..., n) the slope 1 / √(variance + eps), float32 at least.
      gamma: (n,) or None.
      beta: (n,) or None: whether there is a dbeta, and in which dtype.
    """

    X: Array | None
    A: Array | None
    R: Array
    gamma: Array | None
    beta: Array | None


def instance_norm_forward(
    X: Array, gamma: Array | None = None, beta: Array | None = None, *, eps: float = 1e-5, residuals: str = "save"
) -> tuple[Array, InstanceNormResiduals]:
    """Y = X̂ ∘ 1 γᵀ + 1 βᵀ, where X̂ has mean 0 and variance 1 over the tokens, for each example and feature alone.

    X̂ = (X − mean) / √(variance + eps): group norm with groups of one feature.

    Args:
      X: (batch, tokens or space, ..., n) floating point, three axes at least.
      gamma: (n,) scale, or None.
      beta: (n,) shift, or None.
      eps: positive number.
      residuals: "save" keeps X̂, "recompute" keeps X.
    Returns:
      Y (batch, ..., n) in the promoted dtype of X, gamma and beta; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; eps not positive; residuals neither of the two.
    Derivation: docs/derivations/normalization/group_norm.md (Ulyanov, Vedaldi and Lempitsky, 2016)
    """
    check_norm("instance_norm_forward", X, gamma, beta, eps, residuals)
    if X.ndim < 3:
        raise InputError(f"instance_norm_forward: X must have shape (batch, tokens, ..., features), got {describe(X)}")
    A, _, _, R = standardize(X, _between(X.ndim), eps)
    kept = (X, None) if residuals == "recompute" else (None, A.astype(promoted(X)))
    return scale_and_shift(A, gamma, beta, X), InstanceNormResiduals(*kept, R, gamma, beta)


def instance_norm_backward(
    residuals: InstanceNormResiduals, dY: Array, *, eps: float = 1e-5
) -> tuple[Array, Hadamard | None, Total | None]:
    """Pull dY back through Y = X̂ ∘ 1 γᵀ + 1 βᵀ.

        dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(variance + eps)      G = dY ∘ 1 γᵀ, means over the tokens
        dγ = (X̂ ∘ dY)ᵀ 1      dβ = dYᵀ 1

    Args:
      residuals: InstanceNormResiduals of instance_norm_forward.
      dY: (batch, ..., n) cotangent of Y.
      eps: the forward's.
    Returns:
      dX like X; dgamma: Hadamard, (n,); dbeta: Total, (n,); None for a parameter that is not there.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    X, A, R, gamma, beta = check_residuals("instance_norm_backward", residuals, InstanceNormResiduals)
    axes = _between(R.ndim)
    A = recall(X, A, R, axes)
    check_cotangent("instance_norm_backward", dY, A.shape, promoted(A, gamma, beta))
    dX = centered_slope(A, scaled(dY, gamma), R, axes).astype(A.dtype)
    return dX, *parameter_factors(A, dY, gamma, beta)


instance_norm = Rule(instance_norm_forward, instance_norm_backward)


def _in_groups(X: Any, groups: int) -> Any:
    """(batch, ..., n) as (batch, ..., groups, n / groups); None, for what was not kept, as it is."""
    return None if X is None else jnp.reshape(X, (*X.shape[:-1], groups, X.shape[-1] // groups))


def _of_a_group(ndim: int) -> tuple[int, ...]:
    """The axes of (batch, ..., groups, n / groups) that a mean runs over: all but the example's and the group's."""
    return (*range(1, ndim - 2), ndim - 1)


def _between(ndim: int) -> tuple[int, ...]:
    """The axes of tokens or space."""
    return tuple(range(1, ndim - 1))
