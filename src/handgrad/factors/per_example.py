"""PerExample: materialized gradients, for parameters without a cheaper structure."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.factors.base import Factor, Gradient, Gradients, Numbers, Weights, accumulator, check_projection, weighted


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PerExample(Factor):
    """g_b, materialized.

    Attributes:
      g: every example's gradient, in the parameter's dtype, or in a wider one where one example's may not fit.
    """

    g: Gradients
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.g.shape[1:]

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b g_b."""
        return jnp.sum(weighted(self.g, weights), axis=0, dtype=accumulator(self.g))

    def per_example(self) -> Gradients:
        return self.g.astype(accumulator(self.g))

    def gram(self) -> Float[Array, "batch batch"]:
        g = self.per_example().reshape(self.batch, math.prod(self.shape))
        return meshes.einsum("bi,ci->bc", g, g)

    def project(self, P: Float[Array, "n_in r"]) -> Factor:
        if len(self.shape) != 2:
            return super().project(P)
        check_projection("PerExample", P, self.shape)
        return PerExample(jnp.einsum("bio,ir->bro", self.g, P), self.param_dtype)

    def _inner(self, other: Factor) -> Numbers:
        if not isinstance(other, PerExample):
            return super()._inner(other)
        return jnp.sum(self.per_example() * other.per_example(), axis=tuple(range(1, self.g.ndim)))

    def second_moment(self) -> Gradient:
        return jnp.sum(self.per_example() ** 2, axis=0)
