"""Pytrees of factors, one in each parameter's place."""

import math
from collections.abc import Sequence

import jax
from jaxtyping import Array, Bool, PyTree

from handgrad.checks import InputError, describe
from handgrad.factors.base import Factor, Weights, is_factor


def materialize(factors: PyTree[Factor | Array], weights: Weights = None) -> PyTree[Array]:
    """Multiply factors out: Σ_b w_b g_b for each parameter.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> hg.materialize({"b": hg.factors.Total(jnp.ones((4, 2)))})["b"].tolist()
    [4.0, 4.0]

    Args:
      factors: an array among them is a gradient that its layer has summed already, and is returned unchanged.
      weights: the w_b; None stands for ones. Summed gradients can't be weighted.
    """

    def multiply(factor: Factor | Array) -> Array:
        if isinstance(factor, Factor):
            return factor.sum(weights)
        if weights is not None:
            raise InputError(f"materialize: weights need a factor, got a summed gradient, {describe(factor)}")
        return factor

    return jax.tree.map(multiply, factors, is_leaf=is_factor)


def materialize_within(factors: PyTree[Factor | Array], share: float) -> PyTree[Factor | Array]:
    """Factors multiplied out where their sum is at most `share` times as large as they are; others unchanged."""
    return jax.tree.map(
        lambda leaf: leaf.sum() if is_factor(leaf) and is_sum_within((leaf,), share) else leaf,
        factors,
        is_leaf=is_factor,
    )


def is_sum_within(parts: Sequence[Factor | Array], share: float) -> bool:
    """Whether the sum of these factors or arrays, all of one shape, is at most `share` times as large as they are."""
    size = math.prod(parts[0].shape) * max(part.dtype.itemsize for part in parts)
    return size <= share * max(1, sum(a.nbytes for a in jax.tree.leaves(parts)))


def with_mask(factors: PyTree[Factor | Array], mask: Bool[Array, " batch ..."]) -> PyTree[Factor | Array]:
    """Every factor with this mask of tokens: see Factor.with_mask. Arrays are returned unchanged."""
    return jax.tree.map(lambda leaf: leaf.with_mask(mask) if is_factor(leaf) else leaf, factors, is_leaf=is_factor)
