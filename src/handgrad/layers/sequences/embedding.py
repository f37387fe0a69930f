"""Tables as layers: looked up by id, added by position, and the head that compares with every row."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import check_array, check_count, check_params, check_shape
from handgrad.layers.layer import Layer
from handgrad.rule import Rule
from handgrad.rules.sequences.embedding import check_padding_idx

__all__ = ["EmbeddingParams", "embedding", "position_embedding", "tied_head"]

Initializer = jax.nn.initializers.Initializer
NewTable = Callable[[PRNGKeyArray, Array | jax.ShapeDtypeStruct], Array]
SMALL = jax.nn.initializers.normal(0.02)  # as GPT-2 starts (Radford et al. 2019)


class EmbeddingParams(NamedTuple):
    """Parameters of `embedding`, `position_embedding` and `tied_head`.

    Attributes:
      table: (rows, n).
    """

    table: Array


def embedding(
    rows: int,
    n: int,
    *,
    padding_idx: int | None = None,
    init_table: Initializer = SMALL,
    dtype: DTypeLike | None = None,
) -> Layer:
    """y_t = row x_t of the table, with parameters EmbeddingParams(table).

    x is of integers, so dx is None: the layer is the first of a chain. An id outside 0 … rows − 1, a negative one too,
    reads NaN.

    Args:
      rows: how many ids there are.
      n: features.
      padding_idx: a row that is initialized to zeros and gets no gradient, as in PyTorch.
      init_table: initializer, (key, shape, dtype) -> array.
      dtype: of the table, since x has none to take; None is JAX's default float.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("embedding", "rows", rows)
    check_count("embedding", "n", n)
    check_padding_idx("embedding", padding_idx, rows)

    def new_table(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> Array:
        table = init_table(key, (rows, n), jnp.result_type(float) if dtype is None else dtype)
        return table if padding_idx is None else table.at[padding_idx].set(0)

    return _around(rules.embedding.with_options(padding_idx=padding_idx), new_table, rows, n)


def position_embedding(max_tokens: int, *, init_table: Initializer = SMALL) -> Layer:
    """y_t = x_t + row t of the table, with parameters EmbeddingParams(table).

    Args:
      max_tokens: the longest sequence; a longer one is refused.
      init_table: initializer, (key, shape, dtype) -> array; the table gets the features and the dtype of `init`'s x.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("position_embedding", "max_tokens", max_tokens)
    return _around(rules.position_embedding, _like_x("position_embedding", init_table, max_tokens), max_tokens)


def tied_head(rows: int, *, init_table: Initializer = SMALL) -> Layer:
    """Y = X tableᵀ, with parameters EmbeddingParams(table): a head whose weights have an embedding's shape.

    `tied_embedding` makes them an embedding's own.

    Args:
      rows: how many logits.
      init_table: as in `position_embedding`.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("tied_head", "rows", rows)
    return _around(rules.tied_head, _like_x("tied_head", init_table, rows), rows)


def _like_x(name: str, init_table: Initializer, rows: int) -> NewTable:
    """How a table of x's features and dtype is initialized."""

    def new_table(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> Array:
        check_array(name, "x", x, min_ndim=2)
        return init_table(key, (rows, x.shape[-1]), jax.dtypes.canonicalize_dtype(x.dtype))

    return new_table


def _around(rule: Rule[..., Array], new_table: NewTable, rows: int, n: int | None = None) -> Layer:
    """The layer around a rule of (x, table); n None is any number of features."""
    name = rule.__name__

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> EmbeddingParams:
        return EmbeddingParams(new_table(key, x))

    def forward(params: EmbeddingParams, x: Array, key: PRNGKeyArray | None = None) -> tuple[Array, PyTree]:
        table = check_params(name, params, EmbeddingParams).table
        check_array(name, "params.table", table, min_ndim=2)
        check_shape(name, "params.table", table, (rows, n or table.shape[-1]), "(rows, n)")
        return rule.forward(x, table)

    def backward(residuals: PyTree, dy: Array) -> tuple[Array | None, EmbeddingParams]:
        dx, dtable = rule.backward(residuals, dy)
        return dx, EmbeddingParams(dtable)

    return Layer(init, forward, backward)
