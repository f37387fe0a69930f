"""A diagonal plus low rank: vectors, complex numbers, a million times wider than what is formed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rules.linear_algebra.matrices import RNG, passes, run
from rules.refusals import refuses

from handgrad import rules

D = RNG.uniform(1, 2, 4)
U, V = RNG.standard_normal((2, 4, 2))


def test_vectors_and_complex_numbers():
    """A single matrix, a vector, and all four arguments complex, against autodiff of the dense matrix."""
    d, u, v = (a + 1j * RNG.standard_normal(a.shape) for a in (D, U, V))
    b, dy, dS = d[::-1], d * 2, np.asarray(0.3 - 0.4j)

    def dense(d, u, v):
        return jnp.diag(d) + u @ v.T

    def both(d, u, v, b):
        y, pull = jax.vjp(lambda d, u, v, b: jnp.linalg.solve(dense(d, u, v), b), d, u, v, b)
        outputs, pull_both = jax.vjp(lambda *a: tuple(jnp.linalg.slogdet(dense(*a))), d, u, v)
        cotangents = jnp.asarray(dS), jnp.asarray(0.7)
        found = passes("low_rank_solve", dy, d, u, v, b), passes("low_rank_log_determinant", cotangents, d, u, v)
        return found, ((y, *pull(dy)), (outputs, *pull_both(cotangents)))

    found, expected = run(both, d, u, v, b)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_the_matrix_is_never_formed():
    """n = 10⁶: a square matrix of that size would take 8 TB."""
    n = 10**6
    d, thin = jax.ShapeDtypeStruct((n,), float), jax.ShapeDtypeStruct((n, 2), float)
    compiled = jax.jit(lambda *a: passes("low_rank_solve", a[3], *a)).lower(d, thin, thin, d).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40 * 8 * n


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("d must have shape (4,) to match U (4, 2), got float64 (3,)", (D[:3], U, V, D)),
        ("V must have shape (4, 2) to match U, got float64 (2, 4)", (D, U, V.T, D)),
        ("B must have shape (4,) to match U (4, 2), got float64 (3,)", (D, U, V, D[:3])),
        ("U must have shape (..., n, r), got float64 (4,)", (D, D, V, D)),
    ],
)
def test_refusals(sentence, arguments):
    refuses(rules.low_rank_solve, sentence, *arguments)
