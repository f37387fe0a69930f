"""One parameter at many sites: the factors of a loop that uses the same parameter at every step, as one factor."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from handgrad import meshes
from handgrad.factors.base import Factor, is_factor
from handgrad.factors.coupled import Coupled
from handgrad.factors.hadamard import Hadamard
from handgrad.factors.outer import Outer
from handgrad.factors.per_example import PerExample
from handgrad.factors.scatter import Scatter
from handgrad.factors.shared import Shared
from handgrad.factors.stacked import Stacked
from handgrad.factors.total import Total


def over_sites(dparams: PyTree) -> PyTree:
    """g_b = Σ_s g_b of site s: every factor of `dparams`, its arrays stacked along a leading axis of sites, as the one
    factor of their sum.

    Products keep their sides: sites become tokens, so that the sum is ONE product. What has no tokens is materialized,
    (batch, *shape), and added up site by site. Arrays are returned unchanged.
    """
    return jax.tree.map(lambda leaf: _merged(leaf) if is_factor(leaf) else leaf, dparams, is_leaf=is_factor)


def _merged(factor: Factor) -> Factor:
    if isinstance(factor, Coupled):
        return Coupled(_merged(factor.factor), factor.by)
    if isinstance(factor, Shared):
        return Shared(tuple(map(_merged, factor.sites)))
    if isinstance(factor, Stacked):  # (sites, layers, batch, ...)
        return Stacked(jax.vmap(_merged, in_axes=1)(factor.factor))
    if isinstance(factor, Outer | Total | Hadamard) or (isinstance(factor, Scatter) and factor.ids is not None):
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), factor)  # (batch, sites, *tokens, n)

    def add(total: jax.Array, site: Factor) -> tuple[jax.Array, None]:
        return total + site.per_example(), None

    like = jax.eval_shape(lambda sites: jax.tree.map(lambda a: a[0], sites).per_example(), factor)
    total, _ = meshes.scan(add, jnp.zeros(like.shape, like.dtype), factor)
    of_one = jax.eval_shape(lambda sites: jax.tree.map(lambda a: a[0], sites), factor)
    return PerExample(total.astype(of_one.dtype))
