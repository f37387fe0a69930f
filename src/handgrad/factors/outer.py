"""Outer: the gradient of every weight matrix, Σ_b A_bᵀ Δ_b."""

import math
import string
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.factors.base import (
    Array,
    Cost,
    Factor,
    accumulator,
    as_rows,
    as_tokens,
    check_projection,
    check_sides,
    seen_too,
    weighted,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outer(Factor):
    """g_b = A_bᵀ Δ_b, summed over the tokens in between: dense, projection and recurrent weights.

    Attributes:
      A: (batch, ..., n_in) what the weight was multiplied with.
      Delta: (batch, ..., n_out) cotangent of the product.
      param_dtype: the parameter's dtype; None stands for the promoted dtype of A and Delta.
      seen: (batch, ...) booleans, which tokens count: False for padding, where Delta is 0. None stands for all. Sums
        don't ask; means over tokens, as those of K-FAC, do.
    Derivation: docs/derivations/linear/linear.md
    """

    A: Array
    Delta: Array
    param_dtype: Any = field(default=None, metadata={"static": True})
    seen: Array | None = None

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
        return _product(self.A, weighted(self.Delta, weights), accumulator(self.A, self.Delta))

    def per_example(self) -> Array:
        A, Delta = as_tokens(self.A), as_tokens(self.Delta)
        dtype = accumulator(A, Delta)
        return meshes.einsum("bti,bto->bio", A, Delta, dtype)

    def norm_methods(self) -> dict[str, Cost]:
        """gram: ‖AᵀΔ‖² = ⟨A Aᵀ, Δ Δᵀ⟩, from what the tokens have to do with one another; direct: AᵀΔ written out.

        Gram takes 2 T² (n_in + n_out) operations and direct 2 T n_in n_out, so gram is for few tokens:
        T < n_in n_out / (n_in + n_out). Its two (T, T) then take at most half the room of A and Δ.
        """
        T, (n_in, n_out), itemsize = _tokens(self), self.shape, accumulator(self.A, self.Delta).itemsize
        return {
            "gram": Cost(2 * T * T * (n_in + n_out), 2 * T * T * itemsize),
            "direct": Cost(2 * T * n_in * n_out, n_in * n_out * itemsize),
        }

    def gram(self) -> Array:
        """(A Aᵀ) ∘ (Δ Δᵀ) where each example has one token."""
        if _tokens(self) != 1:
            return super().gram()
        dtype = accumulator(self.A, self.Delta)
        A, Delta = as_rows(self.A), as_rows(self.Delta)
        of_A, of_Delta = (meshes.einsum("bi,ci->bc", side, side, dtype) for side in (A, Delta))
        return of_A * of_Delta

    def second_moment(self) -> Array:
        """(A∘A)ᵀ(Δ∘Δ) where each example has one token: (a δ)² = a² δ²."""
        if _tokens(self) != 1:
            return super().second_moment()
        dtype = accumulator(self.A, self.Delta)
        return _product(self.A.astype(dtype) ** 2, self.Delta.astype(dtype) ** 2, dtype)

    def by_token(self) -> "Outer":
        check_sides(self)
        seen = None if self.seen is None else self.seen.reshape(-1)
        return Outer(as_rows(self.A), as_rows(self.Delta), self.param_dtype, seen)

    def counting(self, seen: Array) -> "Outer":
        return replace(self, seen=seen_too(self.seen, seen, self.Delta.shape[:-1]))

    def project(self, P: Array) -> "Outer":
        """Pᵀ AᵀΔ = (A P)ᵀ Δ."""
        check_projection("Outer", P, self.shape)
        return Outer(jnp.matmul(self.A, P), self.Delta, self.param_dtype, self.seen)

    def _sq_norms(self, method: str) -> Array:
        # Where rounding has the last word, a square would be a little below zero and its root no number.
        return jnp.maximum(_gram(self, self), 0) if method == "gram" else self._written_out(self)

    def _inner(self, other: Factor) -> Array:
        """⟨AᵀΔ, A′ᵀΔ′⟩ = ⟨A A′ᵀ, Δ Δ′ᵀ⟩, token by token, wherever that is less work than writing both out."""
        if isinstance(other, Outer) and _gram_is_cheaper(self, other):
            return _gram(self, other)
        return super()._inner(other)


def _tokens(factor: Outer) -> int:
    return math.prod(factor.A.shape[1:-1])


def _product(A: Array, Delta: Array, dtype: Any) -> Array:
    """Σ a δᵀ over all rows. As one long batch it is a product that no compiler transposes first. Tokens that lie on
    several devices can't be one batch with the examples, nor can a sharded axis be merged with an empty one."""
    if any(meshes.spec(A)[1:-1]) or any(meshes.spec(Delta)[1:-1]) or (any(meshes.spec(A)) and not A.size):
        rows = string.ascii_lowercase[: A.ndim - 1]
        return meshes.einsum(f"{rows}y,{rows}z->yz", A, Delta, dtype)
    return meshes.einsum("bi,bo->io", as_rows(A), as_rows(Delta), dtype)


def _gram(one: Outer, two: Outer) -> Array:
    """⟨A A′ᵀ, Δ Δ′ᵀ⟩ for each example."""
    dtype = accumulator(one.A, one.Delta, two.A, two.Delta)
    sides = ((one.A, two.A), (one.Delta, two.Delta))
    if _tokens(one) == _tokens(two) == 1:  # a product of two numbers, each a sum of products
        of_A, of_Delta = (jnp.sum(as_rows(a).astype(dtype) * as_rows(b).astype(dtype), axis=1) for a, b in sides)
        return of_A * of_Delta
    of_A, of_Delta = (meshes.einsum("bti,bsi->bts", as_tokens(a), as_tokens(b), dtype) for a, b in sides)
    return jnp.sum(of_A * of_Delta, axis=(1, 2))


def _gram_is_cheaper(one: Outer, two: Outer) -> bool:
    """T S (n_in + n_out) multiplications against the (T + S) n_in n_out of two gradients."""
    T, S = _tokens(one), _tokens(two)
    n_in, n_out = one.shape
    return T * S * (n_in + n_out) <= (T + S) * n_in * n_out and n_in * n_out >= T * S
