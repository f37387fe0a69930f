"""Curvature of one parameter: its product and its damped inverse, against matrices materialized."""

import jax
import numpy as np
import pytest
from helpers import assert_same

from handgrad.folds.curvature import Diagonal, Kronecker

RNG = np.random.default_rng(0)
DAMPING = 0.3


def positive(*shape):
    """Symmetric and positive."""
    M = RNG.standard_normal((*shape, shape[-1]))
    return M @ np.swapaxes(M, -1, -2)


def matrices(block, shape):
    """The matrix whose products these are, and its damped inverse: (size, size) each."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns = jax.jit(lambda block: [jax.vmap(one.times)(units) for one in (block, block.inverse(DAMPING))])
    return [np.reshape(each, (len(units), -1)).T for each in columns(block)]


@pytest.mark.parametrize("dead", ["none", "A", "G", "both"])
def test_a_kronecker_product(dead):
    """Damped, (A + π √λ I) ⊗ (G + √λ / π I); where a side is zero (a layer that nothing reaches) there is no ratio of
    traces: π = 1."""
    A, G = (np.zeros((n, n)) if dead in (side, "both") else positive(n) for side, n in (("A", 3), ("G", 2)))
    pi = np.sqrt((np.trace(A) / 3) / (np.trace(G) / 2)) if dead == "none" else 1
    matrix, inverse = matrices(Kronecker(A, G), (3, 2))
    assert_same(matrix, np.kron(A, G))
    damped = np.kron(A + pi * DAMPING**0.5 * np.eye(3), G + DAMPING**0.5 / pi * np.eye(2))
    assert_same(inverse, np.linalg.inv(damped), rtol=1e-11)


def test_a_kronecker_product_for_each_layer():
    """As many pairs as layers, each multiplied and inverted by itself."""

    def products(block, V):
        return block.times(V), block.inverse(DAMPING).times(V)

    V, block = RNG.standard_normal((4, 3, 2)), Kronecker(positive(4, 3), positive(4, 2))
    assert_same(*jax.jit(lambda *given: (products(*given), jax.vmap(products)(*given)))(block, V), rtol=1e-11)


def test_a_kernel_with_groups_in_layers():
    """(layers, taps, n_in, groups × n_out): each group's columns meet its own pair."""
    block = Kronecker(positive(2, 3, 4), positive(2, 3, 5), groups=3)
    V = RNG.standard_normal((2, 2, 2, 15))
    expected = np.empty_like(V)
    for layer in range(2):
        for g in range(3):
            columns = slice(5 * g, 5 * g + 5)
            part = block.A[layer, g] @ V[layer, ..., columns].reshape(4, 5) @ block.G[layer, g]
            expected[layer, ..., columns] = part.reshape(2, 2, 5)
    assert_same(jax.jit(Kronecker.times)(block, V), expected)
    assert jax.eval_shape(lambda block: block.inverse(DAMPING), block).A.shape == block.A.shape


def test_a_diagonal():
    d = np.array([1.0, 0.0, 2.0])
    assert_same(matrices(Diagonal(d), (3,)), [np.diag(d), np.diag(1 / (d + DAMPING))])
