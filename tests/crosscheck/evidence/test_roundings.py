"""Roundings counted one after the other, what is exact, and the coarsest type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.evidence.roundings import coarse_intermediates, depth
from handgrad.crosscheck.evidence.tolerance import floor

x = np.ones((8, 8))


def depth_of(f, *args):
    return depth(jax.make_jaxpr(f)(*args))


@pytest.mark.parametrize(
    ("f", "roundings"),
    [
        (lambda x: x, 0),
        (lambda x: -x, 0),
        (lambda x: jnp.abs(x).T.reshape(4, 16)[::-1, :3], 0),
        (lambda x: jnp.maximum(x, 0), 0),
        (lambda x: x + x, 1),
        (lambda x: x * x + x, 2),
        (lambda x: (x * x) + (x + x), 2),
        (lambda x: jnp.exp(jnp.sin(x)), 2),
        (lambda x: x @ x, 1 + 3),
        (lambda x: jnp.sum(x), 1 + 6),
        (lambda x: jnp.sum(x, 0), 1 + 3),
        (lambda x: jnp.max(x), 0),
        (lambda x: jax.jit(lambda x: x * x)(x) + 1, 2),
        (lambda x: jax.lax.scan(lambda c, _: (c * 2.5, None), x, None, length=7)[0], 7),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x * x, lambda x: x * x * x + x, x), 3),
        (lambda x: jnp.cumsum(x, 0), 1 + 3),
    ],
)
def test_depth_of(f, roundings):
    assert depth_of(f, x) == roundings


def test_depth_of_a_convolution():
    image, kernel = np.ones((1, 2, 9, 9)), np.ones((5, 2, 3, 3))
    f = lambda a, b: jax.lax.conv(a, b, (1, 1), "VALID")  # noqa: E731
    assert depth_of(f, image, kernel) == 1 + 5  # 18 terms


def test_depth_grows_with_every_layer_and_logarithmically_with_width():
    def network(n, width):
        def f(x):
            for _ in range(n):
                x = jnp.tanh(x @ jnp.ones((width, width)))
            return x

        return depth_of(f, np.ones((2, width)))

    assert network(6, 16) == 2 * network(3, 16)
    assert network(1, 1024) - network(1, 16) == 6


def test_coarse_intermediates():
    def find(f):
        return coarse_intermediates(jax.make_jaxpr(f)(x))

    assert find(lambda x: x * 2) is None
    assert find(lambda x: x.astype(np.float32).astype(np.float64)) == "float32"
    assert find(lambda x: x.astype(np.float32).astype(jnp.bfloat16).astype(np.float64)) == "bfloat16"
    assert find(jax.jit(lambda x: jax.lax.scan(lambda c, _: (c.astype("f4").astype("f8"), 0), x, None, 2)[0]))
    assert find(lambda x: jnp.argsort(x, 0)) is None
    assert find(lambda x: jax.random.normal(jax.random.key(0), x.shape) * x) is None


@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_the_floor_covers_a_sum_in_any_of_numpys_orders(n):
    """Pairwise sums of terms of one sign err by less than γ̃_k says, k counted as `depth` does."""
    terms = np.random.default_rng(n).uniform(0, 1, n).astype(np.float32)
    exact = float(np.sum(terms.astype(np.float64)))
    roundings = depth_of(jnp.sum, np.ones(n))
    assert abs(float(np.sum(terms)) - exact) <= floor(np.float32, roundings) * exact
    assert abs(float(np.sum(terms)) * 1.0001 - exact) > floor(np.float32, roundings) * exact
