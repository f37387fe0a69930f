"""Recomputed: a gradient whose sides are too large to keep, summed once and computed again for any other question."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.factors.base import Array, Factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Recomputed(Factor):
    """Σ_b g_b, which the backward pass made on its way, and what makes each g_b again.

    The plain sum costs nothing more. A weighted sum, and every fold over single examples, runs `again`.

    Attributes:
      total: Σ_b g_b in the parameter's shape, in the dtype of the sum.
      rows: pytree of arrays, batch first: what each example's gradient is made of.
      shared: pytree of arrays that all examples have in common.
      again: (rows, shared, weights or None, options) -> Σ_b w_b g_b like total, for any number of examples.
      options: what `again` takes besides arrays, hashable.
      param_dtype: the parameter's dtype.
      sides: (rows, shared, options) -> the factor with its sides, written out; None where there is none.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """

    total: Array
    rows: Any
    shared: Any
    again: Callable[..., Array] = field(metadata={"static": True})
    options: Any = field(metadata={"static": True})
    param_dtype: Any = field(metadata={"static": True})
    sides: Callable[..., Factor] | None = field(default=None, metadata={"static": True})

    @property
    def batch(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.total.shape

    @property
    def dtype(self) -> Any:
        return self.param_dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b g_b: the total, or one more pass."""
        return self.total if weights is None else self.again(self.rows, self.shared, weights, self.options)

    def per_example(self) -> Array:
        if self.batch <= 1:
            return jnp.expand_dims(self.total, 0)[: self.batch]

        def alone(rows: Any, shared: Any) -> Array:
            return self.again(jax.tree.map(lambda a: a[None], rows), shared, None, self.options)

        return meshes.along_batch(jax.vmap(alone, in_axes=(0, None)), self.rows, self.shared)

    def pick(self, rows: Callable[[Array], Array]) -> "Recomputed":
        """The factor of other examples, their sum computed again."""
        picked = jax.tree.map(rows, self.rows)
        total = self.again(picked, self.shared, None, self.options)
        return replace(self, total=total, rows=picked)

    def with_sides(self) -> Factor:
        """The same gradients as the factor whose sides were too large to keep, where a question needs them; or self."""
        return self if self.sides is None else self.sides(self.rows, self.shared, self.options)
