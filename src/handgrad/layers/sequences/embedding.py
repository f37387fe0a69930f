"""Tables as layers: looked up by id, added by position, and the head that compares with every row."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_array, check_count, check_params, check_shape
from handgrad.layers.attention.tokens import Tokens
from handgrad.layers.layer import Layer, made_by
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

    Where x is Tokens(X, positions=(batch, tokens)), y_t = X_t + row positions_t, and dx is Tokens as well.

    Args:
      max_tokens: the longest sequence; a longer one is refused.
      init_table: initializer, (key, shape, dtype) -> array; the table gets the features and the dtype of `init`'s x.
    Derivation: docs/derivations/sequences/embedding.md
    """
    where = "position_embedding"
    check_count(where, "max_tokens", max_tokens)
    init, forward, backward, _ = _around(rules.position_embedding, _like_x(where, init_table, max_tokens), max_tokens)

    def forward_at(params: EmbeddingParams, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[Array, PyTree]:
        if not isinstance(x, Tokens):
            return forward(params, x)
        if x.positions is None:
            raise InputError(f"{where}: x must be an array, or Tokens with positions, got Tokens without")
        jax.eval_shape(lambda X: forward(params, X[:, :0]), x.X)  # for its checks; nothing is computed
        return rules.position_embedding_forward(x.X, params.table, x.positions)

    def backward_at(residuals: PyTree, dy: Array) -> tuple[PyTree, EmbeddingParams]:
        dx, dparams = backward(residuals, dy)
        return dx if residuals.positions is None else Tokens(dx), dparams

    return Layer(init, forward_at, backward_at)


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
        dx, dtable, *_ = rule.backward(residuals, dy)
        return dx, EmbeddingParams(dtable)

    return made_by(name, Layer(init, forward, backward))
