"""Total: the gradient of every bias, Σ_b Δ_b."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.factors.base import (
    Factor,
    Gradient,
    Gradients,
    Numbers,
    Weights,
    accumulator,
    as_rows,
    as_tokens,
    weighted,
)
from handgrad.factors.costs import Cost


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Total(Factor):
    """g_b = Σ_t δ_bt: a parameter that is added to every row.

    Attributes:
      Delta: cotangent of the sum.
    Derivation: docs/derivations/linear/linear.md
    """

    Delta: Float[Array, " batch *tokens n"]
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.Delta.shape[-1:]

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b Σ_t δ_bt."""
        Delta = weighted(self.Delta, weights)
        return jnp.sum(Delta, tuple(range(Delta.ndim - 1)), dtype=accumulator(Delta))

    def per_example(self) -> Gradients:
        """Σ_t δ_bt for each example: no larger than Delta itself."""
        return jnp.sum(as_tokens(self.Delta), axis=1, dtype=accumulator(self.Delta))

    def norm_methods(self) -> dict[str, Cost]:
        size, n = math.prod(self.Delta.shape[1:]), self.Delta.shape[-1]
        return {"direct": Cost(size + 2 * n, n * accumulator(self.Delta).itemsize)}

    def gram(self) -> Float[Array, "batch batch"]:
        g = self.per_example()
        return meshes.einsum("bi,ci->bc", g, g)

    def by_token(self) -> "Total":
        return Total(as_rows(self.Delta), self.param_dtype)

    def _inner(self, other: Factor) -> Numbers:
        """⟨Σ_t δ_t, Σ_s δ′_s⟩."""
        if not isinstance(other, Total):
            return super()._inner(other)
        return jnp.sum(self.per_example() * other.per_example(), axis=1)

    def second_moment(self) -> Gradient:
        return jnp.sum(self.per_example() ** 2, axis=0)
