"""Tables of rows: read by name, added by position, and, as the output's weights, compared with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Outer, Scatter
from handgrad.factors.scatter import named_rows
from handgrad.rules.rule import Rule

__all__ = [
    "EmbeddingResiduals",
    "PositionEmbeddingResiduals",
    "TiedHeadResiduals",
    "embedding",
    "embedding_backward",
    "embedding_forward",
    "position_embedding",
    "position_embedding_backward",
    "position_embedding_forward",
    "tied_head",
    "tied_head_backward",
    "tied_head_forward",
]

Array = jax.Array


class EmbeddingResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      ids: (batch, ...) integers, where the cotangent belongs.
      table: (rows, n). No cotangent needs its numbers; it says how many rows there are, and of which dtype.
    """

    ids: Array
    table: Array


def embedding_forward(ids: Array, table: Array) -> tuple[Array, EmbeddingResiduals]:
    """y_t = row id_t of the table: a product with one-hot rows, without the product.

    An id outside 0 … rows − 1 can't be seen at trace time. It reads NaN, as jnp.take does in its mode "fill", and
    nothing of the table changes for it. A negative id is such an id too: −1 is no name for the last row.

    Args:
      ids: (batch, ...) integers.
      table: (rows, n) floating point.
    Returns:
      Y (batch, ..., n) in the table's dtype; residuals.
    Raises:
      InputError: ids are not integers with a batch axis; the table is not a matrix of floating point.
    Derivation: docs/derivations/sequences/embedding.md
    """
    if not (hasattr(ids, "dtype") and jnp.issubdtype(ids.dtype, jnp.integer) and len(ids.shape) >= 1):
        raise InputError(f"embedding_forward: ids must be integers of shape (batch, ...), got {describe(ids)}")
    _check_table("embedding_forward", table)
    Y = meshes.take_rows(jnp.asarray(table), named_rows(ids, table.shape[0]), mode="fill", fill_value=jnp.nan)
    return Y, EmbeddingResiduals(ids, table)


def embedding_backward(residuals: EmbeddingResiduals, dY: Array) -> tuple[None, Scatter]:
    """Pull dY back through y_t = row id_t of the table.

        dtable = Σ_t e_id dy_tᵀ        e_id is 1 at row id; an id outside the table has none

    Args:
      residuals: EmbeddingResiduals of embedding_forward.
      dY: (batch, ..., n) cotangent of Y.
    Returns:
      None for ids; dtable: Scatter, (rows, n).
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/sequences/embedding.md
    """
    ids, table = check_residuals("embedding_backward", residuals, EmbeddingResiduals)
    rows, n = table.shape
    check_cotangent("embedding_backward", dY, (*ids.shape, n), table.dtype)
    return None, Scatter(ids, dY, rows, table.dtype)


embedding = Rule(embedding_forward, embedding_backward)


class PositionEmbeddingResiduals(NamedTuple):
    """Shapes and dtypes alone: no cotangent needs a number of the forward pass.

    Attributes:
      X: (batch, tokens, 0), an array of no bytes with the input's examples, tokens and dtype.
      table: (max_tokens, n), a reference: how many rows there are, and of which dtype.
    """

    X: Array
    table: Array


def position_embedding_forward(X: Array, table: Array) -> tuple[Array, PositionEmbeddingResiduals]:
    """y_t = x_t + row t of the table: every example's token t gets what is learned of place t.

    Args:
      X: (batch, tokens, n) floating point.
      table: (max_tokens, n); rows from `tokens` on have no part in it.
    Returns:
      Y (batch, tokens, n) in the promoted dtype of X and the table; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; more tokens than the table has rows.
    Derivation: docs/derivations/sequences/embedding.md (Gehring et al. 2017)
    """
    where = "position_embedding_forward"
    check_array(where, "X", X)
    if len(X.shape) != 3:
        raise InputError(f"{where}: X must have shape (batch, tokens, n), got {describe(X)}")
    _check_table(where, table)
    check_shape(where, "X", X, (*X.shape[:-1], table.shape[1]), f"to meet the table {table.shape}")
    tokens = X.shape[1]
    if tokens > table.shape[0]:
        raise InputError(f"{where}: X must have at most {table.shape[0]} tokens, the table's rows, got {describe(X)}")
    Y = X + jnp.expand_dims(table[:tokens], 0)
    return Y, PositionEmbeddingResiduals(X[:, :, :0], table)


def position_embedding_backward(residuals: PositionEmbeddingResiduals, dY: Array) -> tuple[Array, Scatter]:
    """Pull dY back through y_t = x_t + row t of the table.

        dX = dY        dtable = Σ_t e_t dy_tᵀ, summed over the examples: row t is Σ_b dy_bt

    Args:
      residuals: PositionEmbeddingResiduals of position_embedding_forward.
      dY: (batch, tokens, n) cotangent of Y.
    Returns:
      dX (batch, tokens, n); dtable: Scatter without ids, (max_tokens, n).
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/sequences/embedding.md
    """
    where = "position_embedding_backward"
    X, table = check_residuals(where, residuals, PositionEmbeddingResiduals)
    rows, n = table.shape
    check_cotangent(where, dY, (*X.shape[:-1], n), jnp.result_type(X, table))
    return dY.astype(X.dtype), Scatter(None, dY, rows, table.dtype)


position_embedding = Rule(position_embedding_forward, position_embedding_backward)


class TiedHeadResiduals(NamedTuple):
    """The arguments: references, no copies.

    Attributes:
      X: (batch, ..., n) input, the right side of dtable.
      table: (rows, n) the embedding's own, for dX.
    """

    X: Array
    table: Array


def tied_head_forward(X: Array, table: Array) -> tuple[Array, TiedHeadResiduals]:
    """Y = X tableᵀ: the logit of row i is its inner product with x. A linear whose weight is an embedding's table.

    Args:
      X: (batch, ..., n) floating point.
      table: (rows, n).
    Returns:
      Y (batch, ..., rows), the logits, in the promoted dtype of X and the table; residuals.
    Raises:
      InputError: a wrong rank, width or dtype.
    Derivation: docs/derivations/sequences/embedding.md (Press and Wolf 2017)
    """
    check_array("tied_head_forward", "X", X, min_ndim=2)
    _check_table("tied_head_forward", table)
    check_shape("tied_head_forward", "X", X, (*X.shape[:-1], table.shape[1]), f"to meet the table {table.shape}")
    return meshes.matmul(X, table.T), TiedHeadResiduals(X, table)


def tied_head_backward(residuals: TiedHeadResiduals, dY: Array) -> tuple[Array, Outer]:
    """Pull dY back through Y = X tableᵀ.

        dX = dY table        dtable = dYᵀ X

    Args:
      residuals: TiedHeadResiduals of tied_head_forward.
      dY: (batch, ..., rows) cotangent of Y.
    Returns:
      dX (batch, ..., n); dtable: Outer, (rows, n): the table's own shape, so that it adds to the embedding's Scatter.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/sequences/embedding.md
    """
    X, table = check_residuals("tied_head_backward", residuals, TiedHeadResiduals)
    check_cotangent("tied_head_backward", dY, (*X.shape[:-1], table.shape[0]), jnp.result_type(X, table))
    return meshes.matmul(dY, table).astype(X.dtype), Outer(dY, X, table.dtype)


tied_head = Rule(tied_head_forward, tied_head_backward)


def _check_table(where: str, table: Array) -> None:
    check_array(where, "table", table)
    if len(table.shape) != 2 or table.shape[0] == 0:
        raise InputError(f"{where}: table must have shape (rows, n), got {describe(table)}")
