"""Total: the gradient of every bias, Σ_b Δ_b."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.factors.base import Array, Cost, Factor, accumulator, as_rows, as_tokens, weighted


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Total(Factor):
    """g_b = Σ_t δ_bt: whatever was added to every row.

    Attributes:
      Delta: (batch, ..., n) cotangent of the sum.
      param_dtype: the parameter's dtype; None stands for Delta's.
    Derivation: docs/derivations/linear/linear.md
    """

    Delta: Array
    param_dtype: Any = field(default=None, metadata={"static": True})

    @property
    def batch(self) -> int:
        return self.Delta.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.Delta.shape[-1:]

    @property
    def dtype(self) -> Any:
        return self.param_dtype or self.Delta.dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b Σ_t δ_bt."""
        Delta = weighted(self.Delta, weights)
        return jnp.sum(Delta, tuple(range(Delta.ndim - 1)), dtype=accumulator(Delta))

    def per_example(self) -> Array:
        """Σ_t δ_bt for each example: no larger than Delta itself."""
        return jnp.sum(as_tokens(self.Delta), axis=1, dtype=accumulator(self.Delta))

    def norm_methods(self) -> dict[str, Cost]:
        size, n = math.prod(self.Delta.shape[1:]), self.Delta.shape[-1]
        return {"direct": Cost(size + 2 * n, n * accumulator(self.Delta).itemsize)}

    def gram(self) -> Array:
        g = self.per_example()
        return meshes.einsum("bi,ci->bc", g, g)

    def by_token(self) -> "Total":
        return Total(as_rows(self.Delta), self.param_dtype)

    def _inner(self, other: Factor) -> Array:
        """⟨Σ_t δ_t, Σ_s δ′_s⟩."""
        if not isinstance(other, Total):
            return super()._inner(other)
        return jnp.sum(self.per_example() * other.per_example(), axis=1)

    def second_moment(self) -> Array:
        return jnp.sum(self.per_example() ** 2, axis=0)
