"""Scatter: the gradient of every table that rows are read from, Σ_b Σ_t e_id δ_btᵀ."""

import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import InputError, check_shape, describe
from handgrad.factors.base import (
    Factor,
    Gradient,
    Gradients,
    Numbers,
    Weights,
    accumulator,
    as_rows,
    as_tokens,
    check_projection,
    weighted,
)
from handgrad.factors.costs import Cost
from handgrad.factors.outer import Outer
from handgrad.factors.per_example import PerExample


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Scatter(Factor):
    """g_b = Σ_t e_id δ_btᵀ: token t read row id of the parameter, and its δ is added there (e_id is 1 at that row).

    A row that is read twice gets two terms, a row that is never read is 0. An id outside 0 … rows − 1 read no row: its
    δ is dropped, even if it is NaN.

    Attributes:
      ids: the row that each token read; None: token t of every example read row t.
      Delta: cotangent of what was read.
      rows: how many the parameter has.
    Derivation: docs/derivations/sequences/embedding.md
    """

    ids: Int[Array, " batch *tokens"] | None
    Delta: Float[Array, " batch *tokens n"]
    rows: int = field(metadata={"static": True})
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})

    takes_precedence = True

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.Delta.shape[-1])

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b Σ_t e_id δ_btᵀ: ONE segment sum over batch × tokens, or one plain sum over the batch."""
        ids, Delta = self._named(), weighted(self.Delta, weights)
        dtype = accumulator(Delta)
        if self.ids is None:
            total = jnp.sum(as_tokens(Delta), axis=0, dtype=dtype)
            return jnp.pad(total, ((0, self.rows - len(total)), (0, 0)))
        return meshes.segment_sum(as_tokens(Delta).astype(dtype), ids, self.rows)

    def per_example(self) -> Gradients:
        Delta = as_tokens(self.Delta).astype(accumulator(self.Delta))
        return _segment_sums(Delta, self._named(), self.rows)

    def _inner(self, other: Factor) -> Numbers:
        """Σ ⟨g's row, h's row⟩ over the rows that g names: no array has the parameter's size."""
        ids, G = self._distinct()
        H = _rows_at(other, ids)
        return super()._inner(other) if H is None else jnp.sum(G * H, axis=(1, 2))

    def norm_methods(self) -> dict[str, Cost]:
        """direct: tokens that name one row are added up, in the memory of Δ; no table is materialized."""
        size = math.prod(self.Delta.shape[1:])
        return {"direct": Cost(3 * size, size * accumulator(self.Delta).itemsize)}

    def by_token(self) -> "Scatter":
        return Scatter(self._named().reshape(-1), as_rows(self.Delta), self.rows, self.param_dtype)

    def touched(self) -> tuple[Int[Array, " k"], Gradient]:
        """Σ_b g_b as a sparse matrix, without the table: ids, each but the invalid id `rows` once, and their rows.

        k is the number of tokens, or that of the table's rows where that is less. All-gathers tokens that are sharded.
        """
        ids, Delta = meshes.replicated((self._named().reshape(1, -1), as_rows(self.Delta)[None]))
        ids, G = Scatter(ids, Delta, self.rows)._distinct()
        again = jnp.concatenate([jnp.zeros(1, bool), ids[0, 1:] == ids[0, :-1]])
        return jnp.where(again, self.rows, ids[0]), G[0]

    def project(self, P: Float[Array, "n_in r"]) -> Outer:
        """Pᵀ Σ_t e_id δ_tᵀ = Σ_t p_id δ_tᵀ: the rows of P that the ids name, and Δ."""
        check_projection("Scatter", P, self.shape)
        named = meshes.take_rows(P, self._named(), 0)
        Delta = jnp.where(jnp.expand_dims(self._named() < self.rows, 2), as_tokens(self.Delta), 0)
        return Outer(named, Delta, self.param_dtype)

    def _sq_norms(self, method: str) -> Numbers:
        """Σ ‖row‖² over the rows that an example names."""
        _, G = self._distinct()
        return jnp.sum(G**2, axis=(1, 2))

    def second_moment(self) -> Gradient:
        """Σ_b g_b∘g_b: the squares of each example's own rows, scattered to the table."""
        ids, G = self._distinct()
        return Scatter(ids, G**2, self.rows).accumulate()

    def _named(self) -> Array:
        """(batch, tokens) the row that each token names; the invalid id `rows` where there is no such row."""
        batch, tokens, _ = as_tokens(self.Delta).shape
        if self.ids is None:
            if tokens > self.rows:
                expected = f"at most {self.rows} tokens, one for each row"
                raise InputError(f"Scatter: Delta must have {expected}, got {describe(self.Delta)}")
            return jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], (batch, tokens))
        check_shape("Scatter", "ids", self.ids, self.Delta.shape[:-1], "(Delta's examples and tokens)")
        return named_rows(self.ids, self.rows).reshape(batch, tokens)

    def _distinct(self) -> tuple[Array, Array]:
        """Each example's gradient as a sparse matrix: sorted ids (batch, k), and their rows G (batch, k, n).

        k is the number of tokens, or of the parameter's rows where that is less. An id that an example names twice
        appears twice: first with the whole sum, then with 0.
        """
        ids, Delta = self._named(), as_tokens(self.Delta).astype(accumulator(self.Delta))
        batch, tokens = ids.shape
        if self.ids is None:
            return ids, Delta
        if tokens >= self.rows:
            every = jnp.arange(self.rows, dtype=jnp.int32)[None]
            return jnp.broadcast_to(every, (batch, self.rows)), self.per_example()
        sorted_ids = jnp.sort(ids, axis=1)
        first = _positions(sorted_ids, ids)
        return sorted_ids, _segment_sums(Delta, jnp.where(ids < self.rows, first, tokens), tokens)


def named_rows(ids: Array, rows: int) -> Array:
    """`ids` of any integer dtype as int32, and the invalid id `rows` where they are outside 0 … rows − 1.

    Compared in their own dtype, so that no id wraps around into the table.
    """
    ids = jnp.asarray(ids)
    last = min(rows - 1, jnp.iinfo(ids.dtype).max)
    return jnp.where((ids >= 0) & (ids <= last), ids.astype(jnp.int32), rows)


def _rows_at(factor: Factor, ids: Array) -> Array | None:
    """The rows `ids` (batch, k) of every g_b, 0 where there is no such row: (batch, k, n). None for a factor that
    would have to be materialized first."""
    if isinstance(factor, Scatter):
        sorted_ids, G = factor._distinct()
        position = _positions(sorted_ids, ids)
        found = _taken(sorted_ids, position, axis=1, fill_value=-1) == ids
        return _taken(G, jnp.expand_dims(jnp.where(found, position, sorted_ids.shape[1]), 2), axis=1)
    if isinstance(factor, Outer):
        # Row i of AᵀΔ is Σ_s A_si Δ_s: only these columns of A are multiplied with Δ.
        A, Delta = as_tokens(factor.A), as_tokens(factor.Delta)
        columns = _taken(A, jnp.expand_dims(ids, 1), axis=2)
        return meshes.einsum("bsk,bsn->bkn", columns, Delta, accumulator(A, Delta))
    return _taken(factor.per_example(), jnp.expand_dims(ids, 2), axis=1) if isinstance(factor, PerExample) else None


def _taken(A: Array, ids: Array, *, axis: int, fill_value: int = 0) -> Array:
    """jnp.take_along_axis, and `fill_value` outside."""
    take = partial(jnp.take_along_axis, axis=axis, mode="fill", fill_value=fill_value)
    return meshes.along_batch(take, A, ids)


def _positions(sorted_ids: Array, ids: Array) -> Array:
    """The first position of each id among its example's sorted ids: (batch, tokens)."""
    return meshes.along_batch(jax.vmap(jnp.searchsorted), sorted_ids, ids)


def _segment_sums(Delta: Array, places: Array, count: int) -> Array:
    """Each example's segment sum: (batch, tokens, n) into (batch, count, n)."""
    sums = jax.vmap(lambda delta, place: jax.ops.segment_sum(delta, place, count))
    return meshes.along_batch(sums, Delta, places)
