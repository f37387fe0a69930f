"""Stacked: the gradients of parameters that `repeat` keeps one behind the other."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.factors.base import Array, Factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stacked(Factor):
    """g_b = (g_b of layer 0, g_b of layer 1, ...): one factor for each of n layers, in one array each.

    Attributes:
      factor: the factor of one layer, with an axis for the layers in front of each of its arrays.
    """

    factor: Factor

    @property
    def batch(self) -> int:
        return self._one_layer().batch

    @property
    def shape(self) -> tuple[int, ...]:
        return (jax.tree.leaves(self.factor)[0].shape[0], *self._one_layer().shape)

    @property
    def dtype(self) -> Any:
        return self._one_layer().dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b g_b, layer by layer: (layers, *shape)."""
        return jax.vmap(lambda layer: layer.accumulate(weights))(self.factor)

    def per_example(self) -> Array:
        return jax.vmap(lambda layer: layer.per_example(), out_axes=1)(self.factor)

    def _inner(self, other: Factor) -> Array:
        if not isinstance(other, Stacked):
            return super()._inner(other)
        return jnp.sum(jax.vmap(lambda one, two: one._inner(two))(self.factor, other.factor), axis=0)

    def second_moment(self) -> Array:
        return jax.vmap(lambda layer: layer.second_moment())(self.factor)

    def example(self, b: Any) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.example(b))(self.factor))

    def _one_layer(self) -> Factor:
        """The shapes and dtypes of one layer's factor."""
        return jax.eval_shape(lambda factor: jax.tree.map(lambda a: a[0], factor), self.factor)
