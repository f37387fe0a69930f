"""Weight norm: a column of zeros, the whole range, what holds for any dV, and what is refused."""

import functools

import jax
import numpy as np
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
V, G, DW = (RNG.standard_normal(shape) for shape in ((4, 3), (3,), (4, 3)))


def test_directions():
    """W's columns have the lengths g, dV is at right angles to V, and the size of V is without meaning for W, even
    where its squares over- or underflow; a column of zeros gives zeros."""

    @jax.jit
    def run(V):
        with_zeros = V.at[:, 1].set(0)
        return [passes(rules.weight_norm, DW, v, G) for v in (V, 1e250 * V, 1e-250 * V, with_zeros)]

    (W, (dV, dg)), (of_large, (dV_large, dg_large)), (of_small, (dV_small, _)), (zeros, (dV_zeros, dg_zeros)) = run(
        jax.numpy.asarray(V)
    )
    np.testing.assert_allclose(np.linalg.norm(W, axis=0), np.abs(G), rtol=1e-14)
    np.testing.assert_allclose(np.sum(V * dV, 0), np.zeros(3), atol=1e-14)
    assert_same((of_large, dg_large, dV_large * 1e250), (W, dg, dV))
    assert_same((of_small, dV_small / 1e250), (W, dV))
    assert not np.asarray(zeros)[:, 1].any()
    assert (np.asarray(dV_zeros)[:, 1].any(), np.asarray(dg_zeros)[1]) == (False, 0)
    assert_same(np.asarray(dV_zeros)[:, [0, 2]], np.asarray(dV)[:, [0, 2]])


def test_bad_input():
    refuse = functools.partial(refuses, rules.weight_norm)
    refuse("V must have shape (batch, ..., features), got float64 (3,)", G, G)
    refuse("g must have shape (3,) to meet V (4, 3), got float64 (4,)", V, np.ones(4))
    refuse("g must have a floating-point dtype, got int64 (3,)", V, np.ones(3, int))
