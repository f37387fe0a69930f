"""Correlation: each output alone, one kernel under two windows, and what norms never materialize."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factors.table import ROWS, correlation, dots, jit, plane, relative_error

from handgrad.factors import Correlation


@pytest.mark.parametrize("name", ["plain", "gram-groups"])
def test_every_output_as_an_example(name):
    """Its part of g_b is what its own δ contributes."""
    row = ROWS[f"correlation-{name}"]
    X, Delta = row.sides(0)
    outputs = [np.zeros_like(Delta) for _ in np.ndindex(*Delta.shape[1:-1])]
    for alone, at in zip(outputs, np.ndindex(*Delta.shape[1:-1]), strict=True):
        alone[:, *at] = Delta[:, *at]

    @jit
    def run(X, Delta, outputs):
        factor = row.make(X, Delta)
        tokens = factor.by_token()
        g = jnp.swapaxes(row.gradients(*((X, alone) for alone in outputs)), 0, 1).reshape(-1, *row.shape)
        return (tokens.per_example(), tokens.sq_norms(), tokens.sum()), g, factor.sum()

    (written_out, norms, total), g, expected = jax.device_get(run(X, Delta, outputs))
    assert relative_error(written_out, g) <= 1e-12
    assert relative_error(norms, dots(g, g)) <= 1e-12
    assert relative_error(total, expected) <= 1e-12


def test_inner_of_one_kernel_under_two_windows():
    """A tied kernel, once with strides and once without: other outputs, the same parameter."""
    rows = ROWS["correlation-gram"], correlation(plane(strides=(2, 1)), (3, 4), 2, 3)
    sides = [row.sides(seed) for seed, row in enumerate(rows)]

    @jit
    def run(sides):
        one, two = (row.make(*given) for row, given in zip(rows, sides, strict=True))
        return one.inner(two), [row.gradients(given)[0] for row, given in zip(rows, sides, strict=True)]

    found, gradients = run(sides)
    assert relative_error(found, dots(*gradients)) <= 1e-12


def test_sq_norms_never_hold_every_gradient(monkeypatch):
    """Neither all gradients nor all patches, where outputs are many."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # several would hold some examples' each
    window = plane((3, 3), padding=((1, 1), (1, 1)))
    X = jax.ShapeDtypeStruct((128, 12, 12, 16), np.float32)
    program = jax.jit(lambda X, Delta: Correlation(X, Delta, window).sq_norms()).lower(X, X).compile()
    gradients, patches = 128 * 9 * 16 * 16 * 4, 128 * 144 * 9 * 16 * 4
    assert program.memory_analysis().temp_size_in_bytes < min(gradients, patches) / 4
