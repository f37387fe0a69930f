"""Recomputed: its sides, its rounding, its static parts; the folds are those of its row in the table."""

import jax
import jax.numpy as jnp
import numpy as np
from factors.table import BATCH, WEIGHTS, jit, recomputed
from helpers import assert_same

from handgrad.factors import Outer, Recomputed

RNG = np.random.default_rng(0)
A, DELTA = RNG.standard_normal((BATCH, 3, 5)), RNG.standard_normal((BATCH, 3, 2))


def test_its_sides_where_it_has_any():
    """Materialized for a fold that needs them; a gradient without sides is returned as it is."""

    def sides(rows, shared, options):
        return Outer(rows[0], rows[1] * shared * options[0])

    def total(rows, shared, weights, options):
        return sides(rows, shared, options).accumulate(weights)

    factor = recomputed(A, DELTA)
    assert factor.with_sides() is factor
    factor = Recomputed(6 * Outer(A, DELTA).sum(), (A, DELTA), np.full((), 2.0), total, (3.0,), np.dtype(float), sides)

    @jit
    def run(factor):
        some = factor.examples(1, 2)
        return jax.tree.leaves(factor.with_sides()), some.with_sides().sum(), some.sum()

    leaves, by_sides, by_rows = run(factor)
    assert_same(leaves, [A, 6 * DELTA])
    assert_same(by_sides, by_rows)


def test_only_the_sum_is_rounded():
    found = jax.eval_shape(
        lambda f: (f.sum(), f.sum(jnp.asarray(WEIGHTS)), f.per_example(), f.sq_norms()),
        recomputed(A, DELTA, np.dtype("float32")),
    )
    assert [fold.dtype for fold in found] == [np.float32, np.float32, np.float64, np.float64]


def test_through_jit_twice_traces_once():
    """The static parts compare equal from one call to the next."""
    traces = []

    @jit
    def total(factor):
        traces.append(1)
        return factor.sum(jnp.asarray(WEIGHTS))

    total(recomputed(A, DELTA))
    total(recomputed(A, DELTA))
    assert len(traces) == 1
