"""Recomputed: the sum at once, every other fold by computing the gradient again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factors.table import BATCH, WEIGHTS, check_folds, folds, jit
from helpers import assert_same

from handgrad import InputError
from handgrad.factors import Outer, Recomputed, Stacked

RNG = np.random.default_rng(0)
A, DELTA, S = (RNG.standard_normal(shape) for shape in ((BATCH, 3, 5), (BATCH, 3, 2), (5, 2)))
EACH = 2 * np.einsum("io,bti,bto->bio", S, A, DELTA)


def recompute(rows, shared, weights, options):
    """S ∘ Σ_b w_b A_bᵀ Δ_b, times the options' number."""
    return options[0] * shared * Outer(*rows).accumulate(weights)


def recomputed(dtype=np.float64, scale=1):
    return Recomputed(scale * EACH.sum(0), (A, DELTA), scale * S, recompute, (2.0,), np.dtype(dtype))


def test_every_fold_is_the_materialized_gradients():
    factor = recomputed()
    assert (factor.batch, factor.shape, factor.dtype) == (BATCH, (5, 2), np.float64)

    @jit
    def run(factor):
        stacked = Stacked(jax.tree.map(lambda a: jnp.stack([a, 3 * a]), factor))
        inner = factor.inner(Outer(A, DELTA)), Outer(A, DELTA).inner(factor)
        return folds(factor, 2), inner, (stacked.sum(jnp.asarray(WEIGHTS)), stacked.sq_norms())

    found, inner, (total, sq_norms) = jax.device_get(run(factor))
    check_folds(found, EACH, np.float64, np.float64, 1e-12, 2)
    assert_same(inner, (np.einsum("bti,bto,bio->b", A, DELTA, EACH),) * 2)
    weighted = np.tensordot(WEIGHTS, EACH, 1)
    assert_same((total, sq_norms), (np.stack([weighted, 27 * weighted]), (1 + 27**2) * (EACH**2).sum((1, 2))))


def test_its_sides_where_it_has_any():
    """Materialized for a fold that needs them; a gradient without sides is returned as it is."""

    def sides(rows, shared, options):
        return Outer(rows[0], rows[1] * shared * options[0])

    def total(rows, shared, weights, options):
        return sides(rows, shared, options).accumulate(weights)

    factor = recomputed()
    assert factor.with_sides() is factor
    factor = Recomputed(EACH.sum(0), (A, DELTA), np.full((), 2.0), total, (3.0,), np.dtype(float), sides)

    @jit
    def run(factor):
        some = factor.examples(1, 2)
        return jax.tree.leaves(factor.with_sides()), some.with_sides().sum(), some.sum()

    leaves, by_sides, by_rows = run(factor)
    assert_same(leaves, [A, 6 * DELTA])
    assert_same(by_sides, by_rows)


def test_only_the_sum_is_rounded():
    found = jax.eval_shape(
        lambda f: (f.sum(), f.sum(jnp.asarray(WEIGHTS)), f.per_example(), f.sq_norms()), recomputed(np.float32)
    )
    assert [fold.dtype for fold in found] == [np.float32, np.float32, np.float64, np.float64]


def test_weights_of_a_wrong_length():
    with pytest.raises(InputError, match=r"^Recomputed.sum: weights must have shape \(4,\) .*got float64 \(3,\)"):
        recomputed().sum(WEIGHTS[:3])


def test_through_jit_twice_traces_once():
    """The static parts compare equal from one call to the next."""
    traces = []

    @jit
    def total(factor):
        traces.append(1)
        return factor.sum(jnp.asarray(WEIGHTS))

    total(recomputed())
    total(recomputed())
    assert len(traces) == 1
