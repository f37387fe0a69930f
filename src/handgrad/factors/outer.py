"""Outer: the gradient of every weight matrix, Σ_b A_bᵀ Δ_b."""

import math
import string
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from handgrad import meshes
from handgrad.factors.base import (
    Factor,
    Gradient,
    Gradients,
    Mask,
    Numbers,
    Weights,
    accumulator,
    as_rows,
    as_tokens,
    check_projection,
    check_sides,
    combined_mask,
    weighted,
)
from handgrad.factors.costs import Cost


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outer(Factor):
    """g_b = A_bᵀ Δ_b, summed over the tokens in between: dense, projection and recurrent weights.

    Attributes:
      A: what the weight was multiplied with.
      Delta: cotangent of the product.
      mask: which tokens count: False for padding, where Delta is 0. None stands for all. Sums don't need it; means over
        tokens, as those of K-FAC, do.
    Derivation: docs/derivations/linear/linear.md
    """

    A: Float[Array, " batch *tokens n_in"]
    Delta: Float[Array, " batch *tokens n_out"]
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})
    mask: Mask | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.A.shape[-1], self.Delta.shape[-1])

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b A_bᵀ Δ_b: ONE product over batch × tokens."""
        check_sides(self, self.A, self.Delta)
        return _product(self.A, weighted(self.Delta, weights), accumulator(self.A, self.Delta))

    def per_example(self) -> Gradients:
        A, Delta = as_tokens(self.A), as_tokens(self.Delta)
        dtype = accumulator(A, Delta)
        return meshes.einsum("bti,bto->bio", A, Delta, dtype)

    def norm_methods(self) -> dict[str, Cost]:
        """gram: ‖AᵀΔ‖² = ⟨A Aᵀ, Δ Δᵀ⟩, the ghost norm, from inner products of tokens; direct: AᵀΔ materialized.

        Gram takes 2 T² (n_in + n_out) operations and direct 2 T n_in n_out, so gram is for few tokens:
        T < n_in n_out / (n_in + n_out). Its two (T, T) then take at most half the memory of A and Δ.
        """
        T, (n_in, n_out), itemsize = _tokens(self), self.shape, accumulator(self.A, self.Delta).itemsize
        return {
            "gram": Cost(2 * T * T * (n_in + n_out), 2 * T * T * itemsize),
            "direct": Cost(2 * T * n_in * n_out, n_in * n_out * itemsize),
        }

    def gram(self) -> Float[Array, "batch batch"]:
        """(A Aᵀ) ∘ (Δ Δᵀ) where each example has one token."""
        if _tokens(self) != 1:
            return super().gram()
        dtype = accumulator(self.A, self.Delta)
        A, Delta = as_rows(self.A), as_rows(self.Delta)
        of_A, of_Delta = (meshes.einsum("bi,ci->bc", side, side, dtype) for side in (A, Delta))
        return of_A * of_Delta

    def second_moment(self) -> Gradient:
        """(A∘A)ᵀ(Δ∘Δ) where each example has one token: (a δ)² = a² δ²."""
        if _tokens(self) != 1:
            return super().second_moment()
        dtype = accumulator(self.A, self.Delta)
        return _product(self.A.astype(dtype) ** 2, self.Delta.astype(dtype) ** 2, dtype)

    def by_token(self) -> "Outer":
        check_sides(self, self.A, self.Delta)
        mask = None if self.mask is None else self.mask.reshape(-1)
        return Outer(as_rows(self.A), as_rows(self.Delta), self.param_dtype, mask)

    def with_mask(self, mask: Mask) -> "Outer":
        return replace(self, mask=combined_mask(self.mask, mask, self.Delta.shape[:-1]))

    def project(self, P: Float[Array, "n_in r"]) -> "Outer":
        """Pᵀ AᵀΔ = (A P)ᵀ Δ."""
        check_projection("Outer", P, self.shape)
        return Outer(jnp.matmul(self.A, P), self.Delta, self.param_dtype, self.mask)

    def _sq_norms(self, method: str) -> Numbers:
        # Rounding can make the sum of products of both signs slightly negative, and its root NaN.
        return jnp.maximum(_gram(self, self), 0) if method == "gram" else self._materialized_inner(self)

    def _inner(self, other: Factor) -> Numbers:
        """⟨AᵀΔ, A′ᵀΔ′⟩ = ⟨A A′ᵀ, Δ Δ′ᵀ⟩, over pairs of tokens, where that is cheaper than materializing both."""
        if isinstance(other, Outer) and _gram_is_cheaper(self, other):
            return _gram(self, other)
        return super()._inner(other)


def _tokens(factor: Outer) -> int:
    return math.prod(factor.A.shape[1:-1])


def _product(A: Shaped[Array, " *rows n"], Delta: Shaped[Array, " *rows m"], dtype: DTypeLike) -> Shaped[Array, "n m"]:
    """Σ a δᵀ over all rows. Reshaped to one long batch it needs no transpose. Sharded tokens can't be merged with the
    batch, nor can a sharded axis be merged with an empty one."""
    if any(meshes.spec(A)[1:-1]) or any(meshes.spec(Delta)[1:-1]) or (any(meshes.spec(A)) and not A.size):
        rows = string.ascii_lowercase[: A.ndim - 1]
        return meshes.einsum(f"{rows}y,{rows}z->yz", A, Delta, dtype)
    return meshes.einsum("bi,bo->io", as_rows(A), as_rows(Delta), dtype)


def _gram(one: Outer, two: Outer) -> Numbers:
    """⟨A A′ᵀ, Δ Δ′ᵀ⟩ for each example."""
    dtype = accumulator(one.A, one.Delta, two.A, two.Delta)
    sides = ((one.A, two.A), (one.Delta, two.Delta))
    if _tokens(one) == _tokens(two) == 1:  # a product of two numbers, each a sum of products
        of_A, of_Delta = (jnp.sum(as_rows(a).astype(dtype) * as_rows(b).astype(dtype), axis=1) for a, b in sides)
        return of_A * of_Delta
    of_A, of_Delta = (meshes.einsum("bti,bsi->bts", as_tokens(a), as_tokens(b), dtype) for a, b in sides)
    return jnp.sum(of_A * of_Delta, axis=(1, 2))


def _gram_is_cheaper(one: Outer, two: Outer) -> bool:
    """T S (n_in + n_out) multiplications against (T + S) n_in n_out for two gradients."""
    T, S = _tokens(one), _tokens(two)
    n_in, n_out = one.shape
    return T * S * (n_in + n_out) <= (T + S) * n_in * n_out and n_in * n_out >= T * S
