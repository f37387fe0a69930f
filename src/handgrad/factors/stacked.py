"""Stacked: the gradients of the stacked parameters of `repeat`."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from handgrad.checks import InputError, describe
from handgrad.factors.base import Factor, Gradient, Gradients, Mask, Numbers, Weights, is_factor
from handgrad.factors.correlation import Correlation
from handgrad.factors.costs import Cost
from handgrad.factors.coupled import Coupled


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stacked(Factor):
    """g_b = (g_b of layer 0, g_b of layer 1, ...): one factor for each layer, their arrays stacked.

    Attributes:
      factor: the factor of one layer, each of its arrays with a leading axis of layers.
    """

    factor: Factor

    @property
    def batch(self) -> int:
        return self.one_layer().batch

    @property
    def shape(self) -> tuple[int, ...]:
        return (jax.tree.leaves(self.factor)[0].shape[0], *self.one_layer().shape)

    @property
    def dtype(self) -> np.dtype:
        return self.one_layer().dtype

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b g_b, layer by layer: (layers, *shape)."""

        def of_one(layer: Factor) -> Array:
            return layer.accumulate(weights)

        if isinstance(self.factor, Correlation):  # vmap would make one grouped convolution, which is slow
            return jax.lax.map(of_one, self.factor)
        return jax.vmap(of_one)(self.factor)

    def per_example(self) -> Gradients:
        return jax.vmap(lambda layer: layer.per_example(), out_axes=1)(self.factor)

    def norm_methods(self) -> dict[str, Cost]:
        layers = self.shape[0]
        of_one = self.one_layer().norm_methods()
        return {name: Cost(layers * cost.flops, layers * cost.bytes) for name, cost in of_one.items()}

    def gram(self) -> Float[Array, "batch batch"]:
        return jnp.sum(jax.vmap(lambda layer: layer.gram())(self.factor), axis=0)

    def second_moment(self) -> Gradient:
        return jax.vmap(lambda layer: layer.second_moment())(self.factor)

    def by_token(self) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.by_token())(self.factor))

    def layers(self) -> Factor:
        return self.factor

    def with_mask(self, mask: Mask) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.with_mask(mask))(self.factor))

    def project(self, P: Float[Array, "layers n_in r"]) -> "Stacked":
        """Every layer with its own P."""
        if jnp.ndim(P) < 3 or P.shape[0] != self.shape[0]:
            wanted = f"P must have shape ({', '.join(map(str, self.shape[:-1]))}, r)"
            raise InputError(f"Stacked.project: {wanted}, got {describe(P)}")
        return Stacked(jax.vmap(lambda layer, P: layer.project(P))(self.factor, P))

    def pick(self, rows: Callable[[Array], Array]) -> "Stacked":
        return Stacked(jax.vmap(lambda layer: layer.pick(rows))(self.factor))

    def _sq_norms(self, method: str) -> Numbers:
        return jnp.sum(jax.vmap(lambda layer: layer._sq_norms(method))(self.factor), axis=0)

    def _inner(self, other: Factor) -> Numbers:
        if not isinstance(other, Stacked):
            return super()._inner(other)
        return jnp.sum(jax.vmap(lambda one, two: one._inner(two))(self.factor, other.factor), axis=0)

    def one_layer(self) -> Factor:
        """The shapes and dtypes of one layer's factor."""
        return jax.eval_shape(lambda factor: jax.tree.map(lambda a: a[0], factor), self.factor)


def stack(dparams: PyTree[Factor | Array]) -> PyTree[Factor | Array]:
    """dparams of one layer, every array with a leading axis of layers, as those of the whole stack."""

    def of_one(d: Factor | Array) -> Factor | Array:
        if isinstance(d, Coupled):
            return Coupled(Stacked(d.factor), d.by)
        return Stacked(d) if is_factor(d) else d

    return jax.tree.map(of_one, dparams, is_leaf=is_factor)
