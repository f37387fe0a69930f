"""Hadamard: the gradient of every scale, Σ_b A_b ∘ Δ_b."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.factors.base import Array, Cost, Factor, accumulator, check_sides
from handgrad.factors.total import Total


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Hadamard(Factor):
    """g_b = Σ_t a_bt ∘ δ_bt: whatever every row was multiplied with, feature by feature.

    Attributes:
      A: (batch, ..., n) what the scale was multiplied with.
      Delta: (batch, ..., n) cotangent of the product.
      param_dtype: the parameter's dtype; None stands for the promoted dtype of A and Delta.
    """

    A: Array
    Delta: Array
    param_dtype: Any = field(default=None, metadata={"static": True})

    @property
    def batch(self) -> int:
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.A.shape[-1:]

    @property
    def dtype(self) -> Any:
        return self.param_dtype or jnp.result_type(self.A.dtype, self.Delta.dtype)

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b Σ_t a_bt ∘ δ_bt."""
        return self._total().accumulate(weights)

    def per_example(self) -> Array:
        return self._total().per_example()

    def norm_methods(self) -> dict[str, Cost]:
        size, n = math.prod(self.A.shape[1:]), self.A.shape[-1]
        return {"direct": Cost(2 * size + 2 * n, (size + n) * accumulator(self.A, self.Delta).itemsize)}

    def gram(self) -> Array:
        return self._total().gram()

    def by_token(self) -> Total:
        return self._total().by_token()

    def _inner(self, other: Factor) -> Array:
        return self._total()._inner(other._total() if isinstance(other, Hadamard) else other)

    def second_moment(self) -> Array:
        return self._total().second_moment()

    def _total(self) -> Total:
        """A scale's gradient is a bias's gradient with A ∘ Δ in Δ's place."""
        check_sides(self)
        dtype = accumulator(self.A, self.Delta)
        return Total(self.A.astype(dtype) * self.Delta.astype(dtype), self.dtype)
