"""Rows of rules/cross_entropy.py."""

import jax.numpy as jnp

from cases.case import Case, fixed, integers, per_example, probabilities, with_target
from handgrad import layers


def sigmoid_cross_entropy(Z, Y):
    return per_example(jnp.logaddexp(Z, 0) - Z * Y)


def binary_cross_entropy(A, Y):
    return per_example(-(Y * jnp.log(A) + (1 - Y) * jnp.log(1 - A)))


CASES = [
    Case("sigmoid_cross_entropy", "rows", with_target((5, 7), probabilities, 2.0), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "tokens", with_target((3, 2, 4), probabilities), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "integers", with_target((5, 7), integers, 2.0), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "1e4", fixed([[1e4, 1e4, -1e4]], [[1.0, 0.5, 0.0]]), sigmoid_cross_entropy),
    Case(
        "binary_cross_entropy",
        "rows",
        lambda rng: (rng.uniform(0.01, 0.99, (5, 7)), rng.uniform(0, 1, (5, 7))),
        binary_cross_entropy,
    ),
    Case(
        "binary_cross_entropy",
        "integers",
        lambda rng: (rng.uniform(0.01, 0.99, (3, 2, 4)), rng.integers(0, 2, (3, 2, 4))),
        binary_cross_entropy,
    ),
    Case("binary_cross_entropy", "tiny", fixed([[1e-30, 1e-3, 0.5]], [[0.0, 1.0, 0.5]]), binary_cross_entropy),
]


LAYERS = {op: getattr(layers, op) for op in ("sigmoid_cross_entropy", "binary_cross_entropy")}
