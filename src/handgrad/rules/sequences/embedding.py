"""Tables of rows: looked up by id, added by position, and tied to the output as its weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals, check_shape, describe, is_integer
from handgrad.factors import Outer, Scatter
from handgrad.factors.scatter import named_rows
from handgrad.rule import Rule

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

Ids = Integer[Array, "batch ..."]
Table = Float[Array, "rows n"]


class EmbeddingResiduals(NamedTuple):
    """The arguments, by reference: ids say where the cotangent belongs, table how many rows there are."""

    ids: Ids
    table: Table


def embedding_forward(
    ids: Ids, table: Table, *, padding_idx: int | None = None
) -> tuple[Float[Array, "batch ... n"], EmbeddingResiduals]:
    """y_t = row id_t of the table: a product with one-hot rows, without the product.

    An id outside 0 … rows − 1 is unknown at trace time. It reads NaN, as jnp.take in its mode "fill", and no gradient
    reaches the table from it. So does a negative id: −1 does not mean the last row.

    Args:
      padding_idx: a row that is read like any other and held constant, as in PyTorch: no gradient reaches it.
    Derivation: docs/derivations/sequences/embedding.md
    """
    if not (is_integer(ids) and len(ids.shape) >= 1):
        raise InputError(f"embedding_forward: ids must be integers of shape (batch, ...), got {describe(ids)}")
    _check_table("embedding_forward", table)
    check_padding_idx("embedding_forward", padding_idx, table.shape[0])
    named = named_rows(ids, table.shape[0])
    Y = meshes.take_rows(jnp.asarray(table), named, jnp.nan)
    if padding_idx is not None:  # Y either way: for autodiff of this forward pass
        Y = jnp.where(jnp.expand_dims(named == padding_idx, -1), jax.lax.stop_gradient(Y), Y)
    return Y, EmbeddingResiduals(ids, table)


def embedding_backward(
    residuals: EmbeddingResiduals, dY: Float[Array, "batch ... n"], *, padding_idx: int | None = None
) -> tuple[None, Scatter]:
    """Pull dY back through y_t = row id_t of the table.

        dtable = Σ_t e_id dy_tᵀ        e_id is the one-hot row of id; 0 for an id outside the table and for padding_idx

    Derivation: docs/derivations/sequences/embedding.md
    """
    ids, table = check_residuals("embedding_backward", residuals, EmbeddingResiduals)
    rows, n = table.shape
    check_cotangent("embedding_backward", dY, (*ids.shape, n), table.dtype)
    if padding_idx is not None:  # as if the id were outside, so that no fold of the factor knows of it
        named = named_rows(ids, rows)
        ids = jnp.where(named == padding_idx, rows, named)
    return None, Scatter(ids, dY, rows, table.dtype)


embedding = Rule(embedding_forward, embedding_backward)


class PositionEmbeddingResiduals(NamedTuple):
    """X without its features, of no byte, for its examples, tokens and dtype; table, by reference, for its shape;
    positions, or None."""

    X: Float[Array, "batch tokens 0"]
    table: Table
    positions: Integer[Array, "batch tokens"] | None


def position_embedding_forward(
    X: Float[Array, "batch tokens n"],
    table: Float[Array, "max_tokens n"],
    positions: Integer[Array, "batch tokens"] | None = None,
) -> tuple[Float[Array, "batch tokens n"], PositionEmbeddingResiduals]:
    """y_t = x_t + row t of the table: a learned vector for each position, the same for all examples.

    The table may have more rows than X has tokens, not fewer. With positions, y_t = x_t + row positions_t, as
    `embedding` reads rows: where padding comes first, or several documents share a row.

    Derivation: docs/derivations/sequences/embedding.md (Gehring et al. 2017)
    """
    where = "position_embedding_forward"
    check_array(where, "X", X)
    if len(X.shape) != 3:
        raise InputError(f"{where}: X must have shape (batch, tokens, n), got {describe(X)}")
    _check_table(where, table)
    check_shape(where, "X", X, (*X.shape[:-1], table.shape[1]), f"to meet the table {table.shape}")
    tokens = X.shape[1]
    if positions is not None:
        if not is_integer(positions):
            raise InputError(f"{where}: positions must be integers, got {describe(positions)}")
        check_shape(where, "positions", positions, X.shape[:2], "(one for each token)")
        rows = meshes.take_rows(jnp.asarray(table), named_rows(positions, table.shape[0]), jnp.nan)
        return X + rows, PositionEmbeddingResiduals(X[:, :, :0], table, positions)
    if tokens > table.shape[0]:
        raise InputError(f"{where}: X must have at most {table.shape[0]} tokens, the table's rows, got {describe(X)}")
    Y = X + jnp.expand_dims(table[:tokens], 0)
    return Y, PositionEmbeddingResiduals(X[:, :, :0], table, None)


def position_embedding_backward(
    residuals: PositionEmbeddingResiduals, dY: Float[Array, "batch tokens n"]
) -> tuple[Float[Array, "batch tokens n"], Scatter, None]:
    """Pull dY back through y_t = x_t + row t of the table.

        dX = dY        dtable = Σ_t e_t dy_tᵀ, summed over the examples: row t is Σ_b dy_bt

    With positions, e_t is the one-hot row of token t's.

    Derivation: docs/derivations/sequences/embedding.md
    """
    where = "position_embedding_backward"
    X, table, positions = check_residuals(where, residuals, PositionEmbeddingResiduals)
    rows, n = table.shape
    check_cotangent(where, dY, (*X.shape[:-1], n), jnp.result_type(X, table))
    return dY.astype(X.dtype), Scatter(positions, dY, rows, table.dtype), None


position_embedding = Rule(position_embedding_forward, position_embedding_backward)


class TiedHeadResiduals(NamedTuple):
    """The arguments, by reference: X is the right side of dtable, and table makes dX."""

    X: Float[Array, "batch ... n"]
    table: Table


def tied_head_forward(
    X: Float[Array, "batch ... n"], table: Table
) -> tuple[Float[Array, "batch ... rows"], TiedHeadResiduals]:
    """Y = X tableᵀ: logits, one for each row of the table: a linear layer whose weight is an embedding's table.

    Derivation: docs/derivations/sequences/embedding.md (Press and Wolf 2017)
    """
    check_array("tied_head_forward", "X", X, min_ndim=2)
    _check_table("tied_head_forward", table)
    check_shape("tied_head_forward", "X", X, (*X.shape[:-1], table.shape[1]), f"to meet the table {table.shape}")
    return meshes.matmul(X, table.T), TiedHeadResiduals(X, table)


def tied_head_backward(
    residuals: TiedHeadResiduals, dY: Float[Array, "batch ... rows"]
) -> tuple[Float[Array, "batch ... n"], Outer]:
    """Pull dY back through Y = X tableᵀ.

        dX = dY table        dtable = dYᵀ X

    dtable has the table's shape, so that it adds to an embedding's Scatter.

    Derivation: docs/derivations/sequences/embedding.md
    """
    X, table = check_residuals("tied_head_backward", residuals, TiedHeadResiduals)
    check_cotangent("tied_head_backward", dY, (*X.shape[:-1], table.shape[0]), jnp.result_type(X, table))
    return meshes.matmul(dY, table).astype(X.dtype), Outer(dY, X, table.dtype)


tied_head = Rule(tied_head_forward, tied_head_backward)


def check_padding_idx(where: str, padding_idx: int | None, rows: int) -> None:
    """`padding_idx` is None or names a row."""
    named = isinstance(padding_idx, int) and not isinstance(padding_idx, bool) and 0 <= padding_idx < rows
    if not (padding_idx is None or named):
        raise InputError(f"{where}: padding_idx must be None or one of 0 … {rows - 1}, got {padding_idx!r}")


def _check_table(where: str, table: Array) -> None:
    check_array(where, "table", table)
    if len(table.shape) != 2 or table.shape[0] == 0:
        raise InputError(f"{where}: table must have shape (rows, n), got {describe(table)}")
