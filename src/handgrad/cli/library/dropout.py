"""Dropout, beside a few lines of jax.numpy with the same key."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Arrays, Entry


def dropout(X: Any, key: Any, rate: float) -> Any:
    """bernoulli's 23 bits; what is dropped is 0, the rest is divided by how often it is kept."""
    kept = jax.random.bits(key, X.shape, jnp.uint32) >> 9 < math.ceil((1 - rate) * 2**23)
    return jnp.where(kept, X / (1 - rate), jnp.zeros_like(X))


def rows_and_key(rng: np.random.Generator) -> Arrays:
    """Rows, and the words of a key."""
    return rng.standard_normal((5, 7)), rng.integers(0, 2**32, 2, dtype=np.uint32)


DROPOUT = [
    Entry("dropout", "rows", rows_and_key, dropout, {"rate": 0.3}),
    Entry("dropout", "rows", rows_and_key, dropout, {"rate": 0.3, "residuals": "recompute"}),
]
