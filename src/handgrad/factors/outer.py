"""Outer: the gradient of every weight matrix, Σ_b A_bᵀ Δ_b."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.factors.base import Array, Factor, accumulator, as_rows, as_tokens, check_sides, weighted


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outer(Factor):
    """g_b = A_bᵀ Δ_b, summed over the tokens in between: dense, projection and recurrent weights.

    Attributes:
      A: (batch, ..., n_in) what the weight was multiplied with.
      Delta: (batch, ..., n_out) cotangent of the product.
      param_dtype: the parameter's dtype; None stands for the promoted dtype of A and Delta.
    Derivation: docs/derivations/linear.md
    """

    A: Array
    Delta: Array
    param_dtype: Any = field(default=None, metadata={"static": True})

    @property
    def batch(self) -> int:
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.A.shape[-1], self.Delta.shape[-1])

    @property
    def dtype(self) -> Any:
        return self.param_dtype or jnp.result_type(self.A.dtype, self.Delta.dtype)

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b A_bᵀ Δ_b: ONE product over batch × tokens."""
        check_sides(self)
        A, Delta = as_rows(self.A), as_rows(weighted(self.Delta, weights))
        return jnp.matmul(A.T, Delta, preferred_element_type=accumulator(A, Delta))

    def per_example(self) -> Array:
        A, Delta = as_tokens(self.A), as_tokens(self.Delta)
        dtype = accumulator(A, Delta)
        return jnp.einsum("bti,bto->bio", A, Delta, preferred_element_type=dtype)

    def _inner(self, other: Factor) -> Array:
        """⟨AᵀΔ, A′ᵀΔ′⟩ = ⟨A A′ᵀ, Δ Δ′ᵀ⟩, token by token, wherever that is less work than writing AᵀΔ out."""
        if not isinstance(other, Outer) or not _gram_is_cheaper(self, other):
            return super()._inner(other)
        dtype = accumulator(self.A, self.Delta, other.A, other.Delta)
        across_A, across_Delta = (
            jnp.einsum("bti,bsi->bts", as_tokens(one), as_tokens(two), preferred_element_type=dtype)
            for one, two in ((self.A, other.A), (self.Delta, other.Delta))
        )
        return jnp.sum(across_A * across_Delta, axis=(1, 2))

    def second_moment(self) -> Array:
        """(A∘A)ᵀ(Δ∘Δ) where each example has one token: (a δ)² = a² δ²."""
        if _tokens(self) != 1:
            return super().second_moment()
        dtype = accumulator(self.A, self.Delta)
        A, Delta = as_tokens(self.A)[:, 0].astype(dtype), as_tokens(self.Delta)[:, 0].astype(dtype)
        return jnp.matmul((A**2).T, Delta**2)


def _tokens(factor: Outer) -> int:
    return as_tokens(factor.A).shape[1]


def _gram_is_cheaper(one: Outer, two: Outer) -> bool:
    """Whether the two Gram products (T, T′) take less work and less room than the two gradients (n_in, n_out).

    T T′ (n_in + n_out) multiplications against (T + T′) n_in n_out, T T′ numbers for an example against n_in n_out.
    """
    T, S = _tokens(one), _tokens(two)
    n_in, n_out = one.shape
    return T * S * (n_in + n_out) <= (T + S) * n_in * n_out and n_in * n_out >= T * S
