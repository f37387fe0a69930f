"""Shared: the gradient of a parameter that is used at several places."""

import functools
import operator
from dataclasses import dataclass
from typing import Any

import jax

from handgrad.factors.base import Array, Factor
from handgrad.shapes import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Shared(Factor):
    """g_b = Σ_s g_b of site s: tied weights.

    Attributes:
      sites: one factor for each use of the parameter, all of one batch, shape and dtype.
    Derivation: docs/derivations/composition.md
    """

    sites: tuple[Factor, ...]

    asked_first = True

    @property
    def batch(self) -> int:
        return self.sites[0].batch

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sites[0].shape

    @property
    def dtype(self) -> Any:
        return self.sites[0].dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_s Σ_b w_b g_b: gradients add up over the sites."""
        self._check_sites()
        return functools.reduce(operator.add, (site.accumulate(weights) for site in self.sites))

    def per_example(self) -> Array:
        return functools.reduce(operator.add, (site.per_example() for site in self.sites))

    def _inner(self, other: Factor) -> Array:
        """Σ_s Σ_r ⟨site s, site r⟩: squared norms do NOT add up over the sites, the cross terms count."""
        self._check_sites()
        others = other.sites if isinstance(other, Shared) else (other,)
        return functools.reduce(operator.add, (one._inner(two) for one in self.sites for two in others))

    def _check_sites(self) -> None:
        """All sites are of one batch and shape: nothing is broadcast in silence."""
        kinds = [(site.batch, *site.shape) for site in self.sites]
        if len(set(kinds)) != 1:
            raise InputError(f"Shared: sites must have one (batch, *shape), got {', '.join(map(str, kinds)) or 'none'}")

    def example(self, b: Any) -> "Shared":
        return Shared(tuple(site.example(b) for site in self.sites))
