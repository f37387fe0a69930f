"""tied_embedding: one table at both ends of a network."""

from typing import Literal

import jax
from jaxtyping import DTypeLike

from handgrad.checks import check_choice, check_count
from handgrad.layers.layer import Layer, check_layer
from handgrad.layers.losses.linear_cross_entropy import tied_projection
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
    head: Literal["logits", "projection"] = "logits",
) -> Layer:
    """logits = body(table[ids]) tableᵀ: ids in, logits out. Params are {"embedding": …, "body": …, "head": ()}.

    The table is used twice, so its gradient is Shared: the embedding's Scatter and the head's Outer, of one shape.

    Args:
      rows: how many ids there are, and logits.
      n: features, of the body's input and of its output.
      body: from (batch, ..., n) to (batch, ..., n).
      init_table, dtype: as for `embedding`.
      head: "projection" leaves the last product to the loss: Projection(body(…), table, transposed=True) in the place
        of logits, as a `tied_projection` returns it for `linear_cross_entropy`.
    Raises:
      InputError: rows or n is not a positive integer; body is not a Layer; another head.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("tied_embedding", "rows", rows)
    check_count("tied_embedding", "n", n)
    check_layer("tied_embedding", body)
    check_choice("tied_embedding", "head", head, ("logits", "projection"))
    read = embedding(rows, n, init_table=init_table, dtype=dtype)
    last = tied_head(rows) if head == "logits" else tied_projection(rows)
    return shared(chain(embedding=read, body=body, head=last), {"head": "embedding"})
