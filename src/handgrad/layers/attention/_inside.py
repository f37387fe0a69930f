"""What multi_head_attention does between its projections: queries and keys are normalized and rotated, and attend."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_count, describe
from handgrad.layers.attention._heads import AttentionResiduals, Heads, of_heads, turned
from handgrad.layers.attention.tokens import Tokens, scores_mask
from handgrad.layers.layer import Layer, check_layer, placed
from handgrad.rule import Rule
from handgrad.rules.attention._arguments import check_against_scores

Bias = Float[Array, "#batch #heads #tokens keys"]


class InsideParams(NamedTuple):
    """The last of MultiHeadAttentionParams: of the norms, the sinks, and the relative position bias; or None."""

    query_norm: PyTree = None
    key_norm: PyTree = None
    sinks: Array | None = None
    relative: Array | None = None


class InsideResiduals(NamedTuple):
    """What norms and rotations of queries and keys keep, and the relative position bias, or None; what the attention
    keeps; and x's bias, for its shape."""

    normed: tuple[PyTree, ...] | None
    rotated: tuple[rules.RotaryResiduals, ...] | None
    relative: rules.RelativePositionBiasResiduals | None
    attention: AttentionResiduals
    bias: Bias | None


@dataclass(frozen=True)
class Inside:
    """The options of multi_head_attention that don't concern its projections.

    Attributes:
      norms: the layers of queries and of keys, or None.
      turning: the rotary rule, or None.
      relative, buckets: the rule of the relative position bias, or None, and how many rows its table has.
      options: of the rule of attention.
      heads, sinks, tile: as multi_head_attention's.
    """

    where: str
    heads: int
    norms: tuple[Layer, Layer] | None
    turning: Rule[..., Array] | None
    relative: Rule[..., Array] | None
    buckets: int
    sinks: Literal["learned", "zero"] | None
    tile: int | None
    options: Mapping[str, Any]

    def init(self, key: PRNGKeyArray, of_head: jax.ShapeDtypeStruct) -> InsideParams:
        of_norms = [norm.init(jax.random.fold_in(key, i), of_head) for i, norm in enumerate(self.norms or ())]
        dtype = jax.dtypes.canonicalize_dtype(of_head.dtype)
        sinks = jnp.zeros(self.heads, dtype) if self.sinks == "learned" else None
        table = None if self.relative is None else jnp.zeros((self.buckets, self.heads), dtype)
        return InsideParams._make([*(of_norms or (None, None)), sinks, table])

    def forward(
        self, params: InsideParams, QKV: tuple[Heads, Heads, Heads], x: Tokens, key: PRNGKeyArray | None
    ) -> tuple[Heads, InsideResiduals]:
        """The heads' outputs; x has the mask, the positions and the bias."""
        self._check(params)
        Q, K, V = QKV
        mask = scores_mask(self.where, x, K.shape[1])
        own = (x.positions, None if x.context is not None else x.positions)
        (Q, K), normed = _through(self.norms, (params.query_norm, params.key_norm), (Q, K))
        turns = None if self.turning is None else tuple(turned(self.turning, positions) for positions in own)
        (Q, K), rotated = _through(turns, ((), ()), (Q, K))
        sinks = jnp.zeros(self.heads, Q.dtype) if self.sinks == "zero" else params.sinks
        bias, relative = x.bias, None
        if self.relative is not None:
            bias, relative = self.relative.forward(self._scores(Q, K, bias), params.relative)
        attend = of_heads(self.tile, self.options, mask)
        Y, attention = attend.forward(sinks, (Q, K, V) if bias is None else (Q, K, V, bias), key)
        return Y, InsideResiduals(normed, rotated, relative, attention, x.bias)

    def backward(
        self, kept: InsideResiduals, dY: Heads
    ) -> tuple[tuple[Heads, Heads, Heads], Array | None, InsideParams]:
        """The cotangents of Q, K and V, of the bias, and of the parameters."""
        (dQ, dK, dV, *of_bias), dsinks = of_heads(self.tile, self.options).backward(kept.attention, dY)
        dbias, dtable = next(iter(of_bias), None), None
        if self.relative is not None:
            dbias, dtable = self.relative.backward(kept.relative, dbias)
            dbias = None if kept.bias is None else _sum_to(dbias, kept.bias)
        if self.turning is not None and kept.rotated is not None:
            dQ, dK = (self.turning.backward(of, d)[0] for of, d in zip(kept.rotated, (dQ, dK), strict=True))
        dnorms = None, None
        if self.norms is not None and kept.normed is not None:
            pairs = [norm.backward(*one) for norm, *one in zip(self.norms, kept.normed, (dQ, dK), strict=True)]
            (dQ, dK), dnorms = zip(*pairs, strict=True)
        dsinks = dsinks if self.sinks == "learned" else None
        return (dQ, dK, dV), dbias, InsideParams(dnorms[0], dnorms[1], dsinks, dtable)

    def _scores(self, Q: Heads, K: Heads, bias: Bias | None) -> Float[Array, "batch heads tokens keys"]:
        """The bias, or zeros, of the scores' whole shape: the table's gradient is of each example."""
        scores = (Q.shape[0], self.heads, Q.shape[1], K.shape[1])
        none = jnp.swapaxes(jnp.zeros_like(Q[..., :1]), 1, 2)
        if bias is not None:
            check_against_scores(self.where, "x.bias", bias, scores)
        return jnp.broadcast_to(none if bias is None else none + bias, scores)

    def _check(self, params: InsideParams) -> None:
        """There are parameters of what this attention has, and of nothing else."""
        wanted = (self.norms, self.norms, self.sinks == "learned" or None, self.relative)
        for name, given, what in zip(InsideParams._fields, params, wanted, strict=True):
            if (given is None) != (what is None):
                expected = "None" if what is None else "parameters"
                raise InputError(f"{self.where}: params.{name} must be {expected}, got {describe(given)}")


def norms_of(where: str, qk_norm: Layer | None) -> tuple[Layer, Layer] | None:
    """The norms of queries and of keys."""
    if qk_norm is None:
        return None
    check_layer(where, qk_norm)
    if qk_norm.couples is not None:
        raise InputError(f"{where}: qk_norm must not couple the examples of a batch, but {qk_norm.couples}")
    return placed("query_norm", qk_norm), placed("key_norm", qk_norm)


def relative_rule(
    where: str, relative: int | Mapping[str, Any] | None, causal: bool
) -> tuple[Rule[..., Array] | None, int]:
    """The rule of the relative position bias with these options, or this number of buckets, and this number."""
    if relative is None:
        return None, 0
    options = {"bidirectional": not causal} | dict(relative if isinstance(relative, Mapping) else {"buckets": relative})
    buckets = options.pop("buckets", 32)
    check_count(where, "relative", buckets)
    rules.relative_position_buckets(np.zeros(0, int), buckets, **options)  # refuses what doesn't fit
    return rules.relative_position_bias.with_options(**options), buckets


def _sum_to(dB: Bias, like: Bias) -> Bias:
    """dB summed over the axes along which a bias like this was broadcast."""
    axes = tuple(axis for axis in range(4) if like.shape[axis] == 1)
    return jnp.sum(dB, axis=axes, keepdims=True).astype(like.dtype)


def _through(
    layers: tuple[Layer, ...] | None, params: tuple[PyTree, ...], both: tuple[Heads, ...]
) -> tuple[tuple[Heads, ...], tuple[PyTree, ...] | None]:
    """Queries and keys, each through its layer, if there are any, and what these keep."""
    if layers is None:
        return both, None
    pairs = [layer.forward(*one) for layer, *one in zip(layers, params, both, strict=True)]
    both, kept = zip(*pairs, strict=True)
    return both, kept
