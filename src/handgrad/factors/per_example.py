"""PerExample: the gradients themselves, for whatever has no structure to keep."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.factors.base import Array, Factor, accumulator, check_projection, weighted


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PerExample(Factor):
    """g_b, written out.

    Attributes:
      g: (batch, *shape) every example's gradient, in the parameter's dtype.
    """

    g: Array

    @property
    def batch(self) -> int:
        return self.g.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.g.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.g.dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b g_b."""
        return jnp.sum(weighted(self.g, weights), axis=0, dtype=accumulator(self.g))

    def per_example(self) -> Array:
        return self.g.astype(accumulator(self.g))

    def gram(self) -> Array:
        g = self.per_example().reshape(self.batch, math.prod(self.shape))
        return meshes.einsum("bi,ci->bc", g, g)

    def project(self, P: Array) -> Factor:
        if len(self.shape) != 2:
            return super().project(P)
        check_projection("PerExample", P, self.shape)
        return PerExample(jnp.einsum("bio,ir->bro", self.g, P))

    def _inner(self, other: Factor) -> Array:
        if not isinstance(other, PerExample):
            return super()._inner(other)
        return jnp.sum(self.per_example() * other.per_example(), axis=tuple(range(1, self.g.ndim)))

    def second_moment(self) -> Array:
        return jnp.sum(self.per_example() ** 2, axis=0)
