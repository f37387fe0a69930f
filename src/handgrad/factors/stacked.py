"""Stacked: the gradients of parameters that `repeat` keeps one behind the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, describe
from handgrad.factors.base import Array, Cost, Factor, is_factor
from handgrad.factors.correlation import Correlation
from handgrad.factors.coupled import Coupled


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
        return self.one_layer().batch

    @property
    def shape(self) -> tuple[int, ...]:
        return (jax.tree.leaves(self.factor)[0].shape[0], *self.one_layer().shape)

    @property
    def dtype(self) -> Any:
        return self.one_layer().dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b g_b, layer by layer: (layers, *shape)."""

        def of_one(layer: Any) -> Array:
            return layer.accumulate(weights)

        if isinstance(self.factor, Correlation):  # side by side they would be one convolution with groups, a slow one
            return jax.lax.map(of_one, self.factor)
        return jax.vmap(of_one)(self.factor)

    def per_example(self) -> Array:
        return jax.vmap(lambda layer: layer.per_example(), out_axes=1)(self.factor)

    def norm_methods(self) -> dict[str, Cost]:
        layers = self.shape[0]
        of_one = self.one_layer().norm_methods()
        return {name: Cost(layers * cost.flops, layers * cost.bytes) for name, cost in of_one.items()}

    def gram(self) -> Array:
        return jnp.sum(jax.vmap(lambda layer: layer.gram())(self.factor), axis=0)

    def second_moment(self) -> Array:
        return jax.vmap(lambda layer: layer.second_moment())(self.factor)

    def by_token(self) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.by_token())(self.factor))

    def layers(self) -> Factor:
        return self.factor

    def counting(self, seen: Array) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.counting(seen))(self.factor))

    def project(self, P: Array) -> "Stacked":
        """Every layer with a P of its own: (layers, n_in, r)."""
        if jnp.ndim(P) < 3 or P.shape[0] != self.shape[0]:
            wanted = f"P must have shape ({', '.join(map(str, self.shape[:-1]))}, r)"
            raise InputError(f"Stacked.project: {wanted}, got {describe(P)}")
        return Stacked(jax.vmap(lambda layer, P: layer.project(P))(self.factor, P))

    def pick(self, rows: Callable[[Array], Array]) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.pick(rows))(self.factor))

    def _sq_norms(self, method: str) -> Array:
        return jnp.sum(jax.vmap(lambda layer: layer._sq_norms(method))(self.factor), axis=0)

    def _inner(self, other: Factor) -> Array:
        if not isinstance(other, Stacked):
            return super()._inner(other)
        return jnp.sum(jax.vmap(lambda one, two: one._inner(two))(self.factor, other.factor), axis=0)

    def one_layer(self) -> Factor:
        """The shapes and dtypes of one layer's factor."""
        return jax.eval_shape(lambda factor: jax.tree.map(lambda a: a[0], factor), self.factor)


def stack(dparams: Any) -> Any:
    """dparams of one layer, every array with an axis of layers in front, as those of the whole stack."""

    def of_one(d: Any) -> Any:
        if isinstance(d, Coupled):
            return Coupled(Stacked(d.factor), d.by)
        return Stacked(d) if is_factor(d) else d

    return jax.tree.map(of_one, dparams, is_leaf=is_factor)
