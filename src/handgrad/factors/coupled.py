"""Coupled: a gradient whose examples can't be told apart."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jax

from handgrad.factors.base import Array, Cost, Factor
from handgrad.shapes import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Coupled(Factor):
    """Σ_b g_b, of which the sum alone has a meaning: a layer made each loss depend on every example.

    What stands in row b of the factor is a part of the sum, but not the gradient of loss b.

    Attributes:
      factor: the factor as the backward pass left it.
      by: the layer that couples, for the error.
    """

    factor: Factor
    by: str = field(metadata={"static": True})

    @property
    def batch(self) -> int:
        return self.factor.batch

    @property
    def shape(self) -> tuple[int, ...]:
        return self.factor.shape

    @property
    def dtype(self) -> Any:
        return self.factor.dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b g_b; another weight for each example has no meaning."""
        return self._refuse() if weights is not None else self.factor.accumulate()

    def per_example(self) -> NoReturn:
        self._refuse()

    def norm_methods(self) -> dict[str, Cost]:
        self._refuse()

    def by_token(self) -> NoReturn:
        self._refuse()

    def pick(self, rows: Callable[[Array], Array]) -> NoReturn:
        self._refuse()

    def counting(self, seen: Array) -> "Coupled":
        return Coupled(self.factor.counting(seen), self.by)

    def project(self, P: Array) -> "Coupled":
        return Coupled(self.factor.project(P), self.by)

    def _inner(self, other: Factor) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{self.by} couples the examples of a batch: expected a model whose losses each depend on one example, as "
            "with layer_norm, group_norm or batch_norm_inference"
        )
