"""What folds leave unwritten."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import handgrad as hg


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Where a batch may lie on several devices, each holds some examples' gradients."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("fold", ["sq_norms", "second_moment"])
@pytest.mark.parametrize("layers", [None, 3])
def test_folds_over_tokens_never_hold_every_gradient(fold, layers):
    """T = 96 tokens of 48 × 48: past the rule for Gram products, where (batch, n_in, n_out) would be tempting."""
    batch, tokens, n = 64, 96, 48
    A = jax.ShapeDtypeStruct((*([layers] if layers else []), batch, tokens, n), np.float64)

    def folded(A, Delta):
        factor = hg.Outer(A, Delta)
        return getattr(hg.Stacked(factor) if layers else factor, fold)()

    written_out = (layers or 1) * batch * n * n * 8
    assert temporary_bytes(folded, A, A) < written_out / 4


def test_sum_needs_no_room_beside_its_result():
    """One product over batch × tokens."""
    A = jax.ShapeDtypeStruct((64, 96, 48), np.float64)
    assert temporary_bytes(lambda A, Delta: hg.Outer(A, Delta).sum(), A, A) < 64 * 48 * 48 * 8 / 4
