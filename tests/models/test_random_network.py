"""Hand-written gradients against jax.grad on a thousand random networks."""

import jax
import numpy as np
import pytest
from helpers import assert_same, both_gradients

from handgrad.crosscheck.subject.compiling import QUICK_TO_COMPILE
from handgrad.models import random_network
from handgrad.models.random_network import ACTIVATIONS, PROBABILITY_LOSSES, REGRESSION_LOSSES

# A thousand networks: four draws of parameters and data for each of 250 structures, and so 250 compiles.
STRUCTURES, DRAWS, PART = 250, 4, 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, STRUCTURES, PART))
def test_value_and_gradients_in_float64(first):
    """Parameters and x, leaf by leaf: at most 1e-12 of the leaf's largest element. Same structure, shapes and
    dtypes."""
    for seed in range(first, first + PART):
        networks = [random_network(seed, draw=draw) for draw in range(DRAWS)]
        both = compiled(both_gradients(networks[0].model, networks[0].loss), networks[0].arguments)
        for network in networks:
            assert_same(*both(*network.arguments))


def compiled(function, arguments):
    """Compiling is the whole price here; where a version of XLA doesn't know the option, its own defaults do."""
    lowered = function.lower(*arguments)
    try:
        return lowered.compile(QUICK_TO_COMPILE)
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


def test_every_part_takes_part():
    """Forty of the networks already use every activation and loss, residual, repeat, tokens and weights."""
    networks = [random_network(seed) for seed in range(40)]
    names = " ".join(network.name for network in networks)
    assert all(f" {name}" in names for name in (*ACTIVATIONS, *REGRESSION_LOSSES, *PROBABILITY_LOSSES, "logsumexp"))
    assert all(part in names for part in ("residual(", "repeat(", "weighted"))
    assert {n.arguments[1].ndim for n in networks} == {2, 3}
    assert {type(n.arguments[0]) for n in networks} == {tuple, dict}


def test_a_seed_is_a_network_and_a_draw_its_numbers():
    one, same, other, drawn = random_network(7), random_network(7), random_network(8), random_network(7, draw=1)
    assert one.name == same.name == drawn.name
    assert other.name != one.name
    assert jax.tree.all(jax.tree.map(np.array_equal, one.arguments, same.arguments))
    assert jax.tree.map(np.shape, one.arguments) == jax.tree.map(np.shape, drawn.arguments)
    assert not np.array_equal(one.arguments[1], drawn.arguments[1])


def test_dtype():
    leaves = jax.tree.leaves(random_network(3, np.float32).arguments)
    assert {leaf.dtype for leaf in leaves if np.issubdtype(leaf.dtype, np.floating)} == {np.dtype(np.float32)}
