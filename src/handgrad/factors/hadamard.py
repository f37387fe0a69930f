"""Hadamard: the gradient of every scale, Σ_b A_b ∘ Δ_b."""

import math
from dataclasses import dataclass, field

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad.factors.base import Factor, Gradient, Gradients, Numbers, Weights, accumulator, check_sides
from handgrad.factors.costs import Cost
from handgrad.factors.total import Total


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Hadamard(Factor):
    """g_b = Σ_t a_bt ∘ δ_bt: a parameter that multiplies every row elementwise.

    Attributes:
      A: what the scale was multiplied with.
      Delta: cotangent of the product.
    """

    A: Float[Array, " batch *tokens n"]
    Delta: Float[Array, " batch *tokens n"]
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.A.shape[-1:]

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b Σ_t a_bt ∘ δ_bt."""
        return self._total().accumulate(weights)

    def per_example(self) -> Gradients:
        return self._total().per_example()

    def norm_methods(self) -> dict[str, Cost]:
        size, n = math.prod(self.A.shape[1:]), self.A.shape[-1]
        return {"direct": Cost(2 * size + 2 * n, (size + n) * accumulator(self.A, self.Delta).itemsize)}

    def gram(self) -> Float[Array, "batch batch"]:
        return self._total().gram()

    def by_token(self) -> Total:
        return self._total().by_token()

    def _inner(self, other: Factor) -> Numbers:
        return self._total()._inner(other._total() if isinstance(other, Hadamard) else other)

    def second_moment(self) -> Gradient:
        return self._total().second_moment()

    def _total(self) -> Total:
        """A scale's gradient is a bias's gradient with A ∘ Δ in Δ's place."""
        check_sides(self, self.A, self.Delta)
        dtype = accumulator(self.A, self.Delta)
        return Total(self.A.astype(dtype) * self.Delta.astype(dtype), self.dtype)
