"""Tables as layers: read by name, added by position, and the head that compares with every row."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_count, check_params, check_shape
from handgrad.layers.layer import Layer
from handgrad.rules.sequences.embedding import (
    embedding_backward,
    embedding_forward,
    position_embedding_backward,
    position_embedding_forward,
    tied_head_backward,
    tied_head_forward,
)

__all__ = [
    "EmbeddingParams",
    "embedding",
    "position_embedding",
    "tied_head",
]

Initializer = jax.nn.initializers.Initializer
SMALL = jax.nn.initializers.normal(0.02)  # as GPT-2 starts (Radford et al. 2019)


class EmbeddingParams(NamedTuple):
    """Parameters of `embedding`, `position_embedding` and `tied_head`.

    Attributes:
      table: (rows, n).
    """

    table: Any


def embedding(rows: int, n: int, *, init_table: Initializer = SMALL, dtype: Any = None) -> Layer:
    """y_t = row x_t of the table, with parameters EmbeddingParams(table).

    x is of integers, so dx is None: the layer stands first in a chain. An id outside 0 … rows − 1, a negative one too,
    reads NaN.

    Args:
      rows: how many ids there are.
      n: features.
      init_table: initializer, (key, shape, dtype) -> array.
      dtype: of the table, which x can't tell; None stands for JAX's own float.
    Raises:
      InputError: rows or n is not a positive integer; at trace time, params of another layer, and as
        embedding_forward and embedding_backward.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("embedding", "rows", rows)
    check_count("embedding", "n", n)

    def init(key, x):
        return EmbeddingParams(init_table(key, (rows, n), jnp.result_type(float) if dtype is None else dtype))

    def forward(params, x, key=None):
        return embedding_forward(x, table_of("embedding", params, rows, n))

    def backward(residuals, dy):
        dx, dtable = embedding_backward(residuals, dy)
        return dx, EmbeddingParams(dtable)

    return Layer(init, forward, backward)


def position_embedding(max_tokens: int, *, init_table: Initializer = SMALL) -> Layer:
    """y_t = x_t + row t of the table, with parameters EmbeddingParams(table).

    Args:
      max_tokens: the longest sequence; a longer one is refused.
      init_table: initializer, (key, shape, dtype) -> array; the table gets the features and the dtype of `init`'s x.
    Raises:
      InputError: max_tokens is not a positive integer; at trace time, params of another layer, and as
        position_embedding_forward and position_embedding_backward.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("position_embedding", "max_tokens", max_tokens)

    def init(key, x):
        return EmbeddingParams(table_for("position_embedding", init_table, key, max_tokens, x))

    def forward(params, x, key=None):
        return position_embedding_forward(x, table_of("position_embedding", params, max_tokens))

    def backward(residuals, dy):
        dx, dtable = position_embedding_backward(residuals, dy)
        return dx, EmbeddingParams(dtable)

    return Layer(init, forward, backward)


def tied_head(rows: int, *, init_table: Initializer = SMALL) -> Layer:
    """Y = X tableᵀ, with parameters EmbeddingParams(table): a head whose weights have an embedding's shape.

    `tied_embedding` makes them an embedding's own.

    Args:
      rows: how many logits.
      init_table: initializer, (key, shape, dtype) -> array; the table gets the features and the dtype of `init`'s x.
    Raises:
      InputError: rows is not a positive integer; at trace time, params of another layer, and as tied_head_forward and
        tied_head_backward.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("tied_head", "rows", rows)

    def init(key, x):
        return EmbeddingParams(table_for("tied_head", init_table, key, rows, x))

    def forward(params, x, key=None):
        return tied_head_forward(x, table_of("tied_head", params, rows))

    def backward(residuals, dy):
        dx, dtable = tied_head_backward(residuals, dy)
        return dx, EmbeddingParams(dtable)

    return Layer(init, forward, backward)


def table_for(where: str, init_table: Initializer, key: Any, rows: int, x: Any) -> Any:
    """A new table of x's features and dtype."""
    check_array(where, "x", x, min_ndim=2)
    return init_table(key, (rows, x.shape[-1]), jax.dtypes.canonicalize_dtype(x.dtype))


def table_of(where: str, params: Any, rows: int, n: int | None = None) -> Any:
    """The table in these params, of the layer's own size."""
    check_params(where, params, EmbeddingParams)
    check_array(where, "params.table", params.table, min_ndim=2)
    check_shape(where, "params.table", params.table, (rows, n or params.table.shape[-1]), "(rows, n)")
    return params.table
