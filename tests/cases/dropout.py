"""Rows of rules/dropout.py."""

import jax
import jax.numpy as jnp

from cases.case import Case, normal
from handgrad import layers


def dropout(X, key, rate):
    if key is None:
        return X * 1
    kept = jax.random.bernoulli(key, jnp.float32(1 - rate), X.shape)
    return jnp.where(kept, X / (1 - rate), 0)


def noisy(shape, make_key=jax.random.key):
    return lambda rng: (rng.standard_normal(shape), make_key(int(rng.integers(2**31))))


CASES = [
    Case("dropout", "tokens", noisy((3, 2, 4)), dropout, {"rate": 0.25}),
    Case("dropout", "recomputed", noisy((4, 5)), dropout, {"rate": 0.1, "residuals": "recompute"}),
    Case("dropout", "words-of-a-key", noisy((5, 3), jax.random.PRNGKey), dropout, {"rate": 0.9}),
    Case("dropout", "no-key", lambda rng: (*normal((2, 3))(rng), None), dropout, {"rate": 0.5}),
    Case("dropout", "nothing-dropped", noisy((2, 3)), dropout, {"rate": 0.0}),
]


LAYERS = {"dropout": lambda: layers.dropout(0.5)}
