"""Tables of rows."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Arrays, Entry, normal


def embedding(ids: Any, table: Any) -> Any:
    """JAX's own reading of rows."""
    return jnp.take(table, ids, axis=0)


def position_embedding(X: Any, table: Any) -> Any:
    """Every example has the same places."""
    return X + jnp.stack([table[: X.shape[1]]] * len(X))


def tied_head(X: Any, table: Any) -> Any:
    """Inner products with every row."""
    return jnp.einsum("...n,rn->...r", X, table)


def ids_and_table(rng: np.random.Generator) -> Arrays:
    """Ids that repeat, and a row that nobody reads."""
    return rng.integers(0, 4, (3, 6)), rng.standard_normal((5, 4))


EMBEDDING = [
    Entry("embedding", "tokens", ids_and_table, embedding),
    Entry("position_embedding", "tokens", normal((3, 2, 4), (5, 4)), position_embedding),
    Entry("tied_head", "tokens", normal((3, 2, 4), (5, 4)), tied_head),
]
