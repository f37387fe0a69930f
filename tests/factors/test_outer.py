"""Outer: pairs with unlike tokens, Gram matrices of odd and even batches, and what folds never materialize."""

import jax
import numpy as np
import pytest
from factors.table import dots, jit, outer, relative_error

from handgrad.factors import Outer, Stacked


def test_inner_products_of_unlike_tokens():
    """Both ways around, and on both sides of the rule that picks the cheaper method."""
    tokens = [(1, 1), (1, 4), (3, 2), (30, 1), (1, 30), (9, 9)]
    rows = [[outer(4, 3, count) for count in pair] for pair in tokens]
    sides = [[row.sides(seed) for seed, row in enumerate(pair)] for pair in rows]

    @jit
    def run(sides):
        return [
            (row.make(*one).inner(other.make(*two)), row.gradients(one)[0], other.gradients(two)[0])
            for (row, other), (one, two) in zip(rows, sides, strict=True)
        ]

    for found, g, h in run(sides):
        assert relative_error(found, dots(g, h)) <= 1e-12


def test_gram_of_any_batch():
    """Odd and even, and one: every pair is found, whichever is first."""
    rng = np.random.default_rng(0)
    factors = [Outer(*(rng.standard_normal((batch, 2, n)) for n in (4, 3))) for batch in (1, 2, 7)]
    for found, g in jit(lambda factors: [(f.gram(), f.per_example()) for f in factors])(factors):
        flat = np.reshape(g, (len(g), -1))
        np.testing.assert_allclose(found, flat @ flat.T, rtol=1e-12, atol=1e-13)


def temporary_bytes(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("layers", [None, 3])
def test_folds_over_tokens_never_hold_every_gradient(layers, monkeypatch):
    """T = 96 tokens of 48 × 48: past the rule for Gram products, where (batch, n_in, n_out) would be tempting."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # several devices would hold some examples' gradients each
    batch, tokens, n = 64, 96, 48
    A = jax.ShapeDtypeStruct((*([layers] if layers else []), batch, tokens, n), np.float64)

    def folded(A, Delta, fold):
        factor = Outer(A, Delta)
        return getattr(Stacked(factor) if layers else factor, fold)()

    for fold in ("sq_norms", "second_moment"):
        found = temporary_bytes(lambda A, Delta, fold=fold: folded(A, Delta, fold), A, A)
        assert found < (layers or 1) * batch * n * n * 8 / 4


def test_sum_needs_no_memory_beside_its_result():
    """One product over batch × tokens."""
    A = jax.ShapeDtypeStruct((64, 96, 48), np.float64)
    assert temporary_bytes(lambda A, Delta: Outer(A, Delta).sum(), A, A) < 64 * 48 * 48 * 8 / 4
