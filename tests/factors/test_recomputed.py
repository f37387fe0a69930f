"""Recomputed: the sum at once, every other fold by computing the gradient again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from handgrad import InputError
from handgrad.factors import Outer, PerExample, Recomputed, Stacked

BATCH = 4
RNG = np.random.default_rng(0)
A, DELTA, S = (jnp.asarray(RNG.standard_normal(shape)) for shape in ((BATCH, 3, 5), (BATCH, 3, 2), (5, 2)))
WEIGHTS = jnp.asarray(RNG.standard_normal(BATCH))


def again(rows, shared, weights, options):
    """S ∘ Σ_b w_b A_bᵀ Δ_b, times the options' number."""
    return options[0] * shared * Outer(*rows).accumulate(weights)


def recomputed(dtype=jnp.float64):
    return Recomputed(again((A, DELTA), S, None, (2.0,)), (A, DELTA), S, again, (2.0,), np.dtype(dtype))


EACH = 2 * jnp.einsum("io,bti,bto->bio", S, A, DELTA)


def test_every_fold_is_the_written_out_gradients():
    factor, written_out = recomputed(), PerExample(EACH)
    assert (factor.batch, factor.shape, factor.dtype) == (BATCH, (5, 2), np.float64)

    @jax.jit
    def folds(factor):
        return (
            factor.sum(),
            factor.sum(WEIGHTS),
            factor.per_example(),
            factor.sq_norms(),
            factor.gram(),
            factor.inner(Outer(A, DELTA)),
            Outer(A, DELTA).inner(factor),
            factor.second_moment(),
            factor.examples(2, 1).per_example(),
        )

    *folded, alone = folds(factor)
    *expected, expected_alone = folds(written_out)
    assert_same(folded, expected)
    assert_same(alone, expected_alone)


def test_its_sides_where_it_has_any():
    """Written out for a question that needs them; a gradient that has none is asked as it is."""

    def sides(rows, shared, options):
        return Outer(rows[0], rows[1] * shared * options[0])

    def total(rows, shared, weights, options):
        return sides(rows, shared, options).accumulate(weights)

    factor = recomputed()
    assert factor.with_sides() is factor
    factor = Recomputed(total((A, DELTA), 2.0, None, (3.0,)), (A, DELTA), 2.0, total, (3.0,), np.dtype(float), sides)
    assert_same(jax.tree.leaves(factor.with_sides()), [A, 6 * DELTA])
    assert_same(factor.examples(1, 2).with_sides().sum(), factor.examples(1, 2).sum())


def test_one_factor_for_each_layer():
    factors = [recomputed(), jax.tree.map(lambda a: 3 * a, recomputed())]
    stacked = Stacked(jax.tree.map(lambda *a: jnp.stack(a), *factors))
    assert_same(stacked.sum(WEIGHTS), jnp.stack([factor.sum(WEIGHTS) for factor in factors]))
    assert_same(stacked.sq_norms(), sum(factor.sq_norms() for factor in factors))


def test_only_the_sum_is_rounded():
    factor = recomputed(jnp.float32)
    assert factor.sum().dtype == factor.sum(WEIGHTS).dtype == jnp.float32
    assert factor.per_example().dtype == factor.sq_norms().dtype == jnp.float64


def test_weights_of_a_wrong_length():
    with pytest.raises(InputError, match=r"^Recomputed.sum: weights must have shape \(4,\) .*got float64 \(3,\)"):
        recomputed().sum(WEIGHTS[:3])


def test_through_jit_twice_compiles_once():
    """The static parts compare equal from one call to the next."""
    traces = []

    @jax.jit
    def total(factor):
        traces.append(1)
        return factor.sum(WEIGHTS)

    total(recomputed())
    total(recomputed())
    assert len(traces) == 1
