"""The relative position bias of T5: a number for each head and bucket of distances, added to the scores."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_count,
    check_flags,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import Scatter
from handgrad.factors.base import accumulator
from handgrad.rule import Rule

__all__ = [
    "RelativePositionBiasResiduals",
    "relative_position_bias",
    "relative_position_bias_backward",
    "relative_position_bias_forward",
    "relative_position_buckets",
]

Scores = Float[Array, "batch heads tokens keys"]
Table = Float[Array, "buckets heads"]


class RelativePositionBiasResiduals(NamedTuple):
    """S and table, by reference, for their shapes and dtypes."""

    S: Scores
    table: Table


def relative_position_bias_forward(
    S: Scores, table: Table, *, bidirectional: bool = True, max_distance: int = 128
) -> tuple[Scores, RelativePositionBiasResiduals]:
    """Y_bhij = S_bhij + table[β(j − i), h]: β is the bucket of the distance from query i to key j.

    Args:
      S: scores, or another bias, or zeros.
      table: a row for each bucket.
      bidirectional, max_distance: as relative_position_buckets.
    Derivation: docs/derivations/attention/relative_position.md (Raffel et al. 2020)
    """
    where = "relative_position_bias_forward"
    check_array(where, "S", S)
    if len(S.shape) != 4 or 0 in S.shape[2:]:
        axes = "(batch, heads, tokens, keys), tokens, keys ≥ 1"
        raise InputError(f"{where}: S must have shape {axes}, got {describe(S)}")
    check_array(where, "table", table)
    if len(table.shape) != 2:
        raise InputError(f"{where}: table must have shape (buckets, heads), got {describe(table)}")
    check_shape(where, "table", table, (table.shape[0], S.shape[1]), f"to meet S {tuple(S.shape)}")
    ahead = np.arange(S.shape[3])[None] - np.arange(S.shape[2])[:, None]
    buckets = relative_position_buckets(ahead, table.shape[0], bidirectional=bidirectional, max_distance=max_distance)
    added = meshes.take_rows(jnp.asarray(table), jnp.asarray(buckets), 0)  # (tokens, keys, heads)
    return S + jnp.expand_dims(jnp.moveaxis(added, 2, 0), 0), RelativePositionBiasResiduals(S, table)


def relative_position_bias_backward(
    residuals: RelativePositionBiasResiduals, dY: Scores, *, bidirectional: bool = True, max_distance: int = 128
) -> tuple[Scores, Scatter]:
    """Pull dY back through Y = S + table[β(j − i)].

        dS = dY      dtable = Σ_δ e_β(δ) d_δᵀ      d_δ = Σ over the diagonal j − i = δ of dY, a number for each head

    Derivation: docs/derivations/attention/relative_position.md
    """
    where = "relative_position_bias_backward"
    S, table = check_residuals(where, residuals, RelativePositionBiasResiduals)
    check_cotangent(where, dY, S.shape, jnp.result_type(S, table))
    distances = np.arange(1 - S.shape[2], S.shape[3])
    buckets = relative_position_buckets(
        distances, table.shape[0], bidirectional=bidirectional, max_distance=max_distance
    )
    D = _diagonals(dY)
    ids = jnp.broadcast_to(jnp.asarray(buckets)[None], D.shape[:2])
    return dY.astype(S.dtype), Scatter(ids, D, table.shape[0], table.dtype)


relative_position_bias = Rule(relative_position_bias_forward, relative_position_bias_backward)


def relative_position_buckets(
    distance: Int[np.ndarray, "*shape"], buckets: int = 32, *, bidirectional: bool = True, max_distance: int = 128
) -> Int[np.ndarray, "*shape"]:
    """The bucket of each distance, the key's place less the query's, as in T5.

    >>> from handgrad import rules
    >>> import numpy as np
    >>> rules.relative_position_buckets(np.array([0, -1, -7, -11, -12, -200, 1, 200])).tolist()
    [0, 1, 7, 8, 9, 15, 17, 31]

    Args:
      buckets: how many; half of a direction's are of one distance each, the others ever wider.
      bidirectional: True gives half of them to keys behind the query; False takes these keys as at distance 0.
      max_distance: from which on all are in a direction's last bucket.
    Derivation: docs/derivations/attention/relative_position.md (Raffel et al. 2020)
    """
    where = "relative_position_buckets"
    check_count(where, "buckets", buckets)
    check_count(where, "max_distance", max_distance)
    check_flags(where, bidirectional=bidirectional)
    each = buckets // 2 if bidirectional else buckets
    exact = each // 2
    if exact == 0 or (bidirectional and buckets % 2) or max_distance <= exact:
        least = "even and at least 4" if bidirectional else "at least 2"
        raise InputError(
            f"{where}: buckets must be {least}, and half of a direction's less than max_distance, "
            f"got {buckets} buckets and {max_distance}"
        )
    wider = exact * (max_distance / exact) ** (np.arange(1, each - exact) / (each - exact))
    begins = np.concatenate([np.arange(1, exact + 1), np.ceil(wider - 1e-9)])
    away = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    ahead = each * (distance > 0) if bidirectional else 0
    return (ahead + np.searchsorted(begins, away, side="right")).astype(np.int32)


def _diagonals(dY: Scores) -> Float[Array, "batch distances heads"]:
    """The sums over each diagonal j − i = 1 − tokens … keys − 1, in float32 at least."""
    batch, heads, tokens, keys = dY.shape
    padded = jnp.pad(jnp.flip(dY, 2), [(0, 0), (0, 0), (0, 0), (0, tokens)])
    skewed = padded.reshape(batch, heads, tokens * (keys + tokens))[:, :, : tokens * (keys + tokens - 1)]
    skewed = skewed.reshape(batch, heads, tokens, keys + tokens - 1)
    return jnp.swapaxes(jnp.sum(skewed, axis=2, dtype=accumulator(dY)), 1, 2)
