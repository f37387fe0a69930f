"""Rows of rules/similarity_losses.py."""

import jax.numpy as jnp

from cases.case import Case, normal, numbers, per_example, with_target
from cases.softmax import log_softmax
from handgrad import layers


def unit(A, epsilon):
    """A / max(‖A‖, ε), the square root never asked for its slope at 0."""
    squares = jnp.sum(A * A, -1, keepdims=True)
    long = squares > epsilon**2
    return jnp.where(long, A / jnp.sqrt(jnp.where(long, squares, 1)), A / epsilon)


def cosine_distance(A, Y, epsilon=1e-8):
    Y = Y.astype(jnp.result_type(A, Y))
    return per_example(1 - jnp.einsum("...i,...i->...", unit(A, epsilon), unit(Y, epsilon)))


def info_nce(A, Y, temperature=0.07, normalize=True, epsilon=1e-8):
    if normalize:
        A, Y = unit(A, epsilon), unit(Y, epsilon)
    return -jnp.diag(log_softmax(jnp.einsum("in,jn->ij", A, Y) / temperature))


def short(rng):
    """A vector of zeros on either side and one shorter than ε = 0.1."""
    A, Y = rng.standard_normal((2, 4, 3))
    A[0], A[1], Y[2] = 0, 0.01 * A[1], 0
    return A, Y


def whole(rng, shape):
    """Integers, never all zero along the last axis."""
    return rng.integers(1, 4, shape)


CASES = [
    Case("cosine_distance", "rows", with_target((5, 7), numbers), cosine_distance),
    Case("cosine_distance", "tokens-integers", with_target((3, 2, 4), whole), cosine_distance),
    Case("cosine_distance", "short", short, cosine_distance, {"epsilon": 0.1}),
    Case("info_nce", "cosines", normal((5, 4), (5, 4)), info_nce, {"temperature": 0.5}),
    Case(
        "info_nce",
        "products",
        normal((3, 4), (3, 4)),
        info_nce,
        {"normalize": False, "residuals": "recompute", "temperature": 2.0},
    ),
    Case("info_nce", "short", short, info_nce, {"temperature": 0.5, "epsilon": 0.1}),
]


LAYERS = {"cosine_distance": layers.cosine_distance, "info_nce": layers.info_nce}
