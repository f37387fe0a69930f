"""How the scores are cut into tiles of queries and keys, and which tiles `causal` or a window hides altogether.

Zeros pad the last row and the last column of tiles; no query of the padding sees a key, and no query sees a key of the
padding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from handgrad.rules.attention import _scores as shared
from handgrad.rules.attention._arguments import Options

PaddedQueries = Float[Array, "batch kv_heads group padded_tokens n"]
PaddedKeys = Float[Array, "batch kv_heads padded_keys n"]
PaddedBias = Shaped[Array, "#batch #kv_heads #group #padded_tokens padded_keys"]  # or mask


def is_worth_tiling(tokens: int, keys: int) -> bool:
    """Whether tiles take less time and memory than the plain form: on a CPU as soon as there are a few of them. On
    other devices every tile is several launches of kernels, and the bar is set by memory alone (time is not measured).
    """
    return tokens * keys >= (256**2 if jax.default_backend() == "cpu" else 2048**2)


def tile_size(tokens: int, keys: int) -> int:
    """Queries and keys of a tile, a compromise: the scores of a small tile stay in a CPU's cache, and a tile on the
    diagonal wastes half of itself; but products of small matrices are slow, as are many steps on other devices."""
    if jax.default_backend() != "cpu":
        return 512
    return 64 if max(tokens, keys) <= 512 else 128


class Place(NamedTuple):
    """The first query and the first key of a tile, or of several tiles."""

    query: Int[Array, "*tiles"]
    key: Int[Array, "*tiles"]


@dataclass(frozen=True)
class Tiles:
    """`tokens` queries in rows of tiles that are `height` high, `keys` keys in columns that are `width` wide."""

    tokens: int
    keys: int
    height: int
    width: int

    @classmethod
    def of(cls, tokens: int, keys: int, tile: int) -> "Tiles":
        """As few tiles as there can be with at most `tile` queries and keys, all of one size."""
        height, width = (-(-count // -(-count // tile)) for count in (tokens, keys))
        return cls(tokens, keys, height, width)

    def visible(self, options: Options, mask: object = None) -> Place:
        """The tiles in which `causal`, the window and a mask in NumPy leave a key for a query to see, row by row."""
        i, j = (a.ravel() for a in np.mgrid[0 : self.tokens : self.height, 0 : self.keys : self.width])
        last_query, last_key = np.minimum(i + self.height, self.tokens) - 1, np.minimum(j + self.width, self.keys) - 1
        before, after = i - last_key, j - last_query  # how far the keys are from the queries, at least
        seen = np.ones(i.shape, bool)
        if options.causal:
            seen &= after <= 0
        if options.window is not None:
            seen &= np.maximum(before, after) < options.window
        if isinstance(mask, np.ndarray):  # its values are known while the program is traced
            some = np.broadcast_to(mask.any(axis=(0, 1)), (self.tokens, self.keys))
            seen &= [some[a : a + self.height, b : b + self.width].any() for a, b in zip(i, j, strict=True)]
        return Place(jnp.asarray(i[seen]), jnp.asarray(j[seen]))

    def numbers(self, at: Place) -> tuple[Int[Array, " height"], Int[Array, " width"]]:
        """The queries and the keys of a tile."""
        return at.query + jnp.arange(self.height), at.key + jnp.arange(self.width)

    def logits(
        self, S: shared.Scores, B: PaddedBias | None, mask: PaddedBias | None, at: Place, options: Options
    ) -> Array:
        """Z of a tile; B and the mask are those of all queries and keys."""
        i, j = self.numbers(at)
        inside = None
        if self.tokens % self.height or self.keys % self.width:
            inside = (i < self.tokens)[:, None] & (j < self.keys)[None]
        B, mask = (None if A is None else self.block(A, at) for A in (B, mask))
        return shared.logits(S, B, mask, i, j, options, inside)

    def of_queries(self, A: shared.Queries, kv_heads: int) -> PaddedQueries:
        """Queries, or what has a row for each of them."""
        return self._padded(shared.grouped(A, kv_heads), -2, self.height)

    def of_keys(self, A: shared.Keys) -> PaddedKeys:
        """Keys, or what has a row for each of them."""
        return self._padded(jnp.moveaxis(A, 1, 2), -2, self.width)

    def of_scores(self, B: Shaped[Array, "batch heads tokens keys"] | None, kv_heads: int) -> PaddedBias | None:
        """A bias or a mask."""
        if B is None:
            return None
        B = self._padded(shared.grouped_scores(B, kv_heads), -1, self.width)
        return B if B.shape[-2] == 1 else self._padded(B, -2, self.height)

    def to_queries(self, A: PaddedQueries) -> shared.Queries:
        """The inverse of `of_queries`."""
        return shared.ungrouped(A[..., : self.tokens, :])

    def to_keys(self, A: PaddedKeys) -> shared.Keys:
        """The inverse of `of_keys`."""
        return jnp.moveaxis(A[..., : self.keys, :], 2, 1)

    def to_scores(self, B: PaddedBias, heads: int) -> Shaped[Array, "batch heads tokens keys"]:
        """The inverse of `of_scores`."""
        B = B[..., : self.tokens, : self.keys]
        return B.reshape(B.shape[0], heads, *B.shape[3:])

    def rows(self, A: Array, at: Place) -> Array:
        """The tile's rows of what has one for each query."""
        return jax.lax.dynamic_slice_in_dim(A, at.query, self.height, -2)

    def columns(self, A: Array, at: Place) -> Array:
        """The tile's rows of what has one for each key."""
        return jax.lax.dynamic_slice_in_dim(A, at.key, self.width, -2)

    def block(self, B: Array, at: Place) -> Array:
        """The tile of a bias or a mask."""
        B = jax.lax.dynamic_slice_in_dim(B, at.key, self.width, -1)
        return B if B.shape[-2] == 1 else self.rows(B, at)

    def with_rows(self, A: Array, rows: Array, at: Place) -> Array:
        """A with the tile's rows in place of its own; XLA does this in place."""
        return jax.lax.dynamic_update_slice_in_dim(A, rows, at.query, -2)

    def plus_rows(self, A: Array, rows: Array, at: Place) -> Array:
        """A plus the tile's rows of queries."""
        return self.with_rows(A, self.rows(A, at) + rows, at)

    def plus_columns(self, A: Array, columns: Array, at: Place) -> Array:
        """A plus the tile's rows of keys."""
        return jax.lax.dynamic_update_slice_in_dim(A, self.columns(A, at) + columns, at.key, -2)

    def plus_block(self, B: Array, block: Array, at: Place) -> Array:
        """B plus the tile's."""
        query = 0 if B.shape[-2] == 1 else at.query
        return jax.lax.dynamic_update_slice(B, self.block(B, at) + block, (0, 0, 0, query, at.key))

    @staticmethod
    def _padded(A: Array, axis: int, size: int) -> Array:
        """A with zeros behind, to a multiple of `size` along the axis."""
        missing = [(0, -A.shape[axis] % size if i == A.ndim + axis else 0) for i in range(A.ndim)]
        return jnp.pad(A, missing)
