"""Pytrees of factors, one in each parameter's place."""

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


def with_mask(factors: PyTree[Factor | Array], mask: Bool[Array, " batch ..."]) -> PyTree[Factor | Array]:
    """Every factor with this mask of tokens: see Factor.with_mask. Arrays are returned unchanged."""
    return jax.tree.map(lambda leaf: leaf.with_mask(mask) if is_factor(leaf) else leaf, factors, is_leaf=is_factor)
