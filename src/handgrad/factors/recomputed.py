"""Recomputed: a gradient whose sides are too large to keep, summed once and rematerialized for any other fold."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from handgrad import meshes
from handgrad.factors.base import Factor, Gradient, Gradients, Weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Recomputed(Factor):
    """Σ_b g_b, summed in the backward pass, and a function that recomputes weighted sums of g_b.

    The unweighted sum costs nothing more. A weighted sum, and every fold over examples, runs `recompute`.

    Attributes:
      total: Σ_b g_b in the parameter's shape, in the dtype of the sum.
      rows: arrays, batch first, that each example's gradient is computed from.
      shared: arrays that all examples have in common.
      recompute: (rows, shared, weights or None, options) -> Σ_b w_b g_b like total, for any number of examples.
      options: static options of `recompute`.
      sides: (rows, shared, options) -> the factor with its sides materialized; None where there is none.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """

    total: Gradient
    rows: PyTree[Array]
    shared: PyTree[Array]
    recompute: Callable[..., Array] = field(metadata={"static": True})
    options: Hashable = field(metadata={"static": True})
    param_dtype: DTypeLike | None = field(metadata={"static": True})
    sides: Callable[..., Factor] | None = field(default=None, metadata={"static": True})

    @property
    def batch(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.total.shape

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b g_b: the total, or recomputed."""
        return self.total if weights is None else self.recompute(self.rows, self.shared, weights, self.options)

    def per_example(self) -> Gradients:
        if self.batch <= 1:
            return jnp.expand_dims(self.total, 0)[: self.batch]

        def alone(rows: PyTree[Array], shared: PyTree[Array]) -> Array:
            return self.recompute(jax.tree.map(lambda a: a[None], rows), shared, None, self.options)

        return meshes.along_batch(jax.vmap(alone, in_axes=(0, None)), self.rows, self.shared)

    def pick(self, rows: Callable[[Array], Array]) -> "Recomputed":
        """The factor of other examples, their sum recomputed."""
        picked = jax.tree.map(rows, self.rows)
        total = self.recompute(picked, self.shared, None, self.options)
        return replace(self, total=total, rows=picked)

    def with_sides(self) -> Factor:
        """The same gradients as a factor with its sides, for a fold that needs them; or self."""
        return self if self.sides is None else self.sides(self.rows, self.shared, self.options)
