"""Shared: the gradient of a parameter that is used at several places, as tied weights are."""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.checks import InputError
from handgrad.factors.base import Factor, Gradient, Gradients, Mask, Numbers, Weights, as_tokens
from handgrad.factors.costs import Cost, cheapest
from handgrad.factors.outer import Outer
from handgrad.factors.recomputed import Recomputed
from handgrad.factors.scatter import Scatter


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Shared(Factor):
    """g_b = Σ_s g_b of site s.

    Attributes:
      sites: one factor for each use of the parameter, all of one batch, shape and dtype.
    Derivation: docs/derivations/structure/shared.md
    """

    sites: tuple[Factor, ...]

    takes_precedence = True

    @property
    def batch(self) -> int:
        return self.sites[0].batch

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sites[0].shape

    @property
    def dtype(self) -> np.dtype:
        return self.sites[0].dtype

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_s Σ_b w_b g_b: gradients add up over the sites."""
        self._check_sites()
        return functools.reduce(operator.add, (site.accumulate(weights) for site in self.sites))

    def per_example(self) -> Gradients:
        return functools.reduce(operator.add, (site.per_example() for site in self.sites))

    def norm_methods(self) -> dict[str, Cost]:
        """Those of the product where all sites are products; else each site's cheapest method, and the cross terms."""
        sites = jax.eval_shape(_joined, self.sites)
        if len(sites) == 1:
            return sites[0].norm_methods()
        costs = [methods[cheapest(methods)] for methods in (site.norm_methods() for site in sites)]
        flops = sum(cost.flops for cost in costs) + sum(
            itertools.starmap(_cross_flops, itertools.combinations(sites, 2))
        )
        return {"direct": Cost(flops, max(cost.bytes for cost in costs))}

    def by_token(self) -> "Shared":
        """A token's gradient is the sum over the sites, which must all have the same tokens."""
        return Shared(tuple(site.by_token() for site in self.sites))

    def layers(self) -> "Shared | None":
        """Where every site is a stack: the sites of each layer."""
        layers = tuple(site.layers() for site in self.sites)
        return None if None in layers else Shared(tuple(layer for layer in layers if layer is not None))

    def with_mask(self, mask: Mask) -> "Shared":
        return Shared(tuple(site.with_mask(mask) for site in self.sites))

    def project(self, P: Float[Array, "n_in r"]) -> "Shared":
        return Shared(tuple(site.project(P) for site in self.sites))

    def pick(self, rows: Callable[[Array], Array]) -> "Shared":
        return Shared(tuple(site.pick(rows) for site in self.sites))

    def _sq_norms(self, method: str) -> Numbers:
        """Σ_s ‖g_s‖² + 2 Σ_{s<r} ⟨g_s, g_r⟩: squared norms do NOT add up over the sites."""
        self._check_sites()
        sites = _joined(self.sites)
        if len(sites) == 1:
            return sites[0]._sq_norms(method)
        if any(isinstance(site, Recomputed) for site in sites):  # recomputed once, not for each of its products
            return self._materialized_inner(self)
        squares = (site.sq_norms() for site in sites)
        crosses = (2 * one._inner(two) for one, two in itertools.combinations(sites, 2))
        return jnp.maximum(functools.reduce(operator.add, (*squares, *crosses)), 0)

    def _inner(self, other: Factor) -> Numbers:
        """Σ_s Σ_r ⟨site s, site r⟩."""
        self._check_sites()
        others = other.sites if isinstance(other, Shared) else (other,)
        return functools.reduce(operator.add, (one._inner(two) for one in self.sites for two in others))

    def _check_sites(self) -> None:
        """All sites are of one batch and shape: nothing is broadcast."""
        kinds = [(site.batch, *site.shape) for site in self.sites]
        if len(set(kinds)) != 1:
            raise InputError(f"Shared: sites must have one (batch, *shape), got {', '.join(map(str, kinds)) or 'none'}")


def _joined(sites: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """The same sum in fewer sites: all products as one product over their concatenated tokens."""
    outers = [site for site in sites if isinstance(site, Outer)]
    if len(outers) < 2:
        return sites
    A, Delta = (
        jnp.concatenate([as_tokens(side) for side in sides], axis=1)
        for sides in zip(*((site.A, site.Delta) for site in outers), strict=True)
    )
    return (Outer(A, Delta), *(site for site in sites if not isinstance(site, Outer)))


def _cross_flops(one: Factor, two: Factor) -> int:
    """Pairs of tokens where both have tokens; else both gradients are materialized."""
    if isinstance(one, Outer | Scatter) and isinstance(two, Outer | Scatter):
        *_, n = one.Delta.shape
        return 2 * math.prod(one.Delta.shape[1:-1]) * math.prod(two.Delta.shape[1:-1]) * n
    return 2 * math.prod(one.shape)
