"""tied_embedding: one table at both ends of a network."""

import jax
from jaxtyping import DTypeLike

from handgrad.checks import check_count
from handgrad.layers.layer import Layer, check_layer
from handgrad.layers.sequences.embedding import SMALL, embedding, tied_head
from handgrad.layers.structure.chain import chain
from handgrad.layers.structure.shared import shared

__all__ = ["tied_embedding"]


def tied_embedding(
    rows: int,
    n: int,
    body: Layer,
    *,
    init_table: jax.nn.initializers.Initializer = SMALL,
    dtype: DTypeLike | None = None,
) -> Layer:
    """logits = body(table[ids]) tableᵀ: ids in, logits out. Params are {"embedding": …, "body": …, "head": ()}.

    The table is used twice, so its gradient is Shared: the embedding's Scatter and the head's Outer, of one shape.

    Args:
      rows: how many ids there are, and logits.
      n: features, of the body's input and of its output.
      body: from (batch, ..., n) to (batch, ..., n).
      init_table, dtype: as for `embedding`.
    Raises:
      InputError: rows or n is not a positive integer; body is not a Layer.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("tied_embedding", "rows", rows)
    check_count("tied_embedding", "n", n)
    check_layer("tied_embedding", body)
    read = embedding(rows, n, init_table=init_table, dtype=dtype)
    return shared(chain(embedding=read, body=body, head=tied_head(rows)), {"head": "embedding"})
