"""Shared: cross terms of a table that is read at one end and multiplied with at the other, and rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factors.table import BATCH, TABLE_ROWS, WEIGHTS, N, dots, jit, outer, scatter
from helpers import assert_same

from handgrad.factors import Shared, Total


def test_shared_adds_its_sites_before_rounding():
    """256 + 1 + 1 = 258, a bfloat16; rounded site by site it would be 256."""
    sites = tuple(Total(np.full((1, 1), value, jnp.bfloat16)) for value in (256, 1, 1))
    assert np.float64(jit(lambda sites: Shared(sites).sum())(sites)) == 258


@pytest.mark.parametrize("tokens", [1, 4, 9])
def test_tied_weights(tokens):
    """Shared((Scatter, Outer)), in either order: the cross terms count."""
    rows = scatter((tokens,)), outer(TABLE_ROWS, N, tokens)
    sides = [row.sides(seed) for seed, row in enumerate(rows)]

    @jit
    def run(sides):
        read, head = (row.make(*given) for row, given in zip(rows, sides, strict=True))
        both = Shared((read, head)), Shared((head, read))
        g = sum(row.gradients(given)[0] for row, given in zip(rows, sides, strict=True))
        return [(f.sum(jnp.asarray(WEIGHTS)), f.sq_norms(), f.second_moment(), f.inner(f)) for f in both], g

    found, g = jax.device_get(run(sides))
    assert len(g) == BATCH
    assert_same(found, [(np.tensordot(WEIGHTS, g, 1), dots(g, g), (g**2).sum(0), dots(g, g))] * 2)
