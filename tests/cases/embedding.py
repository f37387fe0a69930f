"""Rows of rules/embedding.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, normal
from handgrad import layers


def embedding(ids, table):
    """A product with one-hot rows."""
    return jnp.einsum("...r,rn->...n", jnp.eye(len(table), dtype=table.dtype)[ids], table)


def position_embedding(X, table):
    return X + jnp.broadcast_to(table[: X.shape[1]], X.shape)


def tied_head(X, table):
    return jnp.einsum("...n,rn->...r", X, table)


def some_ids(shape, rows, n, dtype=np.int32):
    """Ids that repeat, within an example and across, and a table."""
    return lambda rng: (rng.integers(0, rows, shape, dtype), rng.standard_normal((rows, n)))


CASES = [
    Case("embedding", "tokens", some_ids((3, 4), 5, 2), embedding),
    Case("embedding", "rows", some_ids((6,), 4, 3, np.uint8), embedding),
    Case("embedding", "one-row", some_ids((2, 3, 2), 1, 1), embedding),
    Case("embedding", "one-id", lambda rng: (np.full((2, 5), 2), rng.standard_normal((3, 4))), embedding),
    Case("position_embedding", "shorter", normal((3, 2, 4), (5, 4)), position_embedding),
    Case("position_embedding", "as-long", normal((2, 3, 2), (3, 2)), position_embedding),
    Case("position_embedding", "single", normal((1, 1, 1), (2, 1)), position_embedding),
    Case("tied_head", "tokens", normal((3, 2, 4), (5, 4)), tied_head),
    Case("tied_head", "rows", normal((4, 3), (2, 3)), tied_head),
    Case("tied_head", "empty", normal((0, 3), (2, 3)), tied_head),
]


LAYERS = {
    "embedding": lambda: layers.embedding(5, 2),
    "position_embedding": lambda: layers.position_embedding(5),
    "tied_head": lambda: layers.tied_head(5),
}
