"""tied_embedding: one table at both ends of a network."""

from typing import Any, NamedTuple

import jax

from handgrad.checks import check_count, check_params, check_residuals
from handgrad.factors import Shared
from handgrad.factors.coupled import coupled
from handgrad.layers.layer import Layer, check_layer, composed, passed_back, placed
from handgrad.layers.sequences.embedding import SMALL, EmbeddingParams, embedding, tied_head

__all__ = [
    "TiedEmbeddingParams",
    "tied_embedding",
]

Initializer = jax.nn.initializers.Initializer


class TiedEmbeddingParams(NamedTuple):
    """Parameters of `tied_embedding`.

    Attributes:
      table: (rows, n), read by the embedding and compared with by the head.
      body: what the layer in between has.
    """

    table: Any
    body: Any


class TiedEmbeddingResiduals(NamedTuple):
    """embedding, body, head: what each of the three keeps. The table among them is the one that came in."""

    embedding: Any
    body: Any
    head: Any


def tied_embedding(rows: int, n: int, body: Layer, *, init_table: Initializer = SMALL, dtype: Any = None) -> Layer:
    """logits = body(table[ids]) tableᵀ: ids in, logits out, with parameters TiedEmbeddingParams(table, body).

    The table is used twice, so its gradient is Shared: the embedding's Scatter and the head's Outer, of one shape.

    Args:
      rows: how many ids there are, and logits.
      n: features, of what the body is given and of what it gives back.
      body: from (batch, ..., n) to (batch, ..., n); it gets the key.
      init_table, dtype: as for `embedding`.
    Raises:
      InputError: rows or n is not a positive integer; body is not a Layer; at trace time, params or residuals of
        another layer, and whatever the three parts raise, with their names in front.
    Derivation: docs/derivations/sequences/embedding.md
    """
    check_count("tied_embedding", "rows", rows)
    check_count("tied_embedding", "n", n)
    check_layer("tied_embedding", body)
    read = placed("embedding", embedding(rows, n, init_table=init_table, dtype=dtype))
    within, head = placed("body", body), placed("head", tied_head(rows))

    def init(key, x):
        key_table, key_body = jax.random.split(key)
        params = read.init(key_table, x)
        x, _ = jax.eval_shape(read.forward, params, x)
        return TiedEmbeddingParams(params.table, within.init(key_body, x))

    def forward(params, x, key=None):
        check_params("tied_embedding", params, TiedEmbeddingParams)
        table = EmbeddingParams(params.table)
        x, of_embedding = read.forward(table, x)
        x, of_body = within.forward(params.body, x, key)
        y, of_head = head.forward(table, x)
        return y, TiedEmbeddingResiduals(of_embedding, of_body, of_head)

    def backward(residuals, dy):
        of_embedding, of_body, of_head = check_residuals("tied_embedding", residuals, TiedEmbeddingResiduals)
        dx, at_the_head = head.backward(of_head, dy)
        dx, dbody = within.backward(of_body, dx)
        dbody, by = passed_back(within, dbody)
        dx, at_the_embedding = read.backward(of_embedding, dx)
        dtable = Shared((at_the_embedding.table, at_the_head.table))
        return dx, TiedEmbeddingParams(coupled(dtable, by), dbody)

    return composed(init, forward, backward, within.couples)
