"""Curvature of one parameter: its product and its damped inverse, against matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from handgrad.folds.curvature import Diagonal, Kronecker

RNG = np.random.default_rng(0)
DAMPING = 0.3


def positive(*shape):
    """Symmetric and positive."""
    M = RNG.standard_normal((*shape, shape[-1]))
    return jnp.asarray(M @ np.swapaxes(M, -1, -2))


def written_out(block, shape):
    """The matrix whose products these are: (size, size)."""
    units = jnp.eye(int(np.prod(shape)))
    return jax.vmap(lambda unit: block.times(unit.reshape(shape)).reshape(-1))(units).T


def damped(A, G):
    """(A + π √λ I) ⊗ (G + √λ / π I)."""
    pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
    return np.kron(A + pi * DAMPING**0.5 * np.eye(len(A)), G + DAMPING**0.5 / pi * np.eye(len(G)))


def test_a_kronecker_product():
    A, G = positive(3), positive(2)
    block = Kronecker(A, G)
    assert_same(written_out(block, (3, 2)), jnp.kron(A, G))
    assert_same(written_out(block.inverse(DAMPING), (3, 2)), jnp.asarray(np.linalg.inv(damped(A, G))), rtol=1e-11)


def test_a_kronecker_product_for_each_layer():
    block = Kronecker(positive(4, 3), positive(4, 2))
    V = jnp.asarray(RNG.standard_normal((4, 3, 2)))
    for of_all in (lambda block: block, lambda block: block.inverse(DAMPING)):
        found = jax.jit(lambda block, of_all=of_all: of_all(block).times(V))(block)
        expected = [of_all(Kronecker(A, G)).times(v) for A, G, v in zip(block.A, block.G, V, strict=True)]
        assert_same(found, jnp.stack(expected), rtol=1e-11)


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
    assert_same(block.times(jnp.asarray(V)), jnp.asarray(expected))
    assert block.inverse(DAMPING).A.shape == block.A.shape


def test_a_diagonal():
    block = Diagonal(jnp.asarray([1.0, 0.0, 2.0]))
    assert_same(written_out(block, (3,)), jnp.diag(block.d))
    assert_same(written_out(block.inverse(DAMPING), (3,)), jnp.diag(1 / (block.d + DAMPING)))


@pytest.mark.parametrize("dead", ["A", "G", "both"])
def test_no_curvature_is_damping_alone(dead):
    """Where a side is zero (a layer that nothing reaches) there is no ratio of traces: π = 1."""
    A, G = (jnp.zeros((n, n)) if dead in (side, "both") else positive(n) for side, n in (("A", 3), ("G", 2)))
    root = DAMPING**0.5
    expected = jnp.kron(jnp.linalg.inv(A + root * jnp.eye(3)), jnp.linalg.inv(G + root * jnp.eye(2)))
    assert_same(written_out(Kronecker(A, G).inverse(DAMPING), (3, 2)), expected, rtol=1e-11)
