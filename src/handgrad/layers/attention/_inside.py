"""What multi_head_attention does between its projections: queries and keys are normalized and rotated, and attend."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.attention._heads import AttentionResiduals, Heads, of_heads, turned
from handgrad.layers.attention.tokens import Tokens, scores_mask
from handgrad.layers.layer import Layer, check_layer, placed
from handgrad.rule import Rule


class InsideParams(NamedTuple):
    """The last of MultiHeadAttentionParams: of the norms, and the sinks; or None."""

    query_norm: PyTree = None
    key_norm: PyTree = None
    sinks: Array | None = None


class InsideResiduals(NamedTuple):
    """What the norms and the rotations of queries and keys keep, or None; and what the attention keeps."""

    normed: tuple[PyTree, ...] | None
    rotated: tuple[rules.RotaryResiduals, ...] | None
    attention: AttentionResiduals


@dataclass(frozen=True)
class Inside:
    """The options of multi_head_attention that don't concern its projections.

    Attributes:
      norms: the layers of queries and of keys, or None.
      turning: the rotary rule, or None.
      options: of the rule of attention.
      heads, sinks, tile: as multi_head_attention's.
    """

    where: str
    heads: int
    norms: tuple[Layer, Layer] | None
    turning: Rule[..., Array] | None
    sinks: Literal["learned", "zero"] | None
    tile: int | None
    options: Mapping[str, Any]

    def init(self, key: PRNGKeyArray, of_head: jax.ShapeDtypeStruct) -> InsideParams:
        of_norms = [norm.init(jax.random.fold_in(key, i), of_head) for i, norm in enumerate(self.norms or ())]
        dtype = jax.dtypes.canonicalize_dtype(of_head.dtype)
        sinks = jnp.zeros(self.heads, dtype) if self.sinks == "learned" else None
        return InsideParams._make([*(of_norms or (None, None)), sinks])

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
        attend = of_heads(self.tile, self.options, mask)
        Y, attention = attend.forward(sinks, (Q, K, V) if x.bias is None else (Q, K, V, x.bias), key)
        return Y, InsideResiduals(normed, rotated, attention)

    def backward(
        self, kept: InsideResiduals, dY: Heads
    ) -> tuple[tuple[Heads, Heads, Heads], Array | None, InsideParams]:
        """The cotangents of Q, K and V, of the bias, and of the parameters."""
        (dQ, dK, dV, *dbias), dsinks = of_heads(self.tile, self.options).backward(kept.attention, dY)
        if self.turning is not None and kept.rotated is not None:
            dQ, dK = (self.turning.backward(of, d)[0] for of, d in zip(kept.rotated, (dQ, dK), strict=True))
        dnorms = None, None
        if self.norms is not None and kept.normed is not None:
            pairs = [norm.backward(*one) for norm, *one in zip(self.norms, kept.normed, (dQ, dK), strict=True)]
            (dQ, dK), dnorms = zip(*pairs, strict=True)
        dsinks = dsinks if self.sinks == "learned" else None
        return (dQ, dK, dV), next(iter(dbias), None), InsideParams(dnorms[0], dnorms[1], dsinks)

    def _check(self, params: InsideParams) -> None:
        """There are parameters of what this attention has, and of nothing else."""
        wanted = (self.norms, self.norms, self.sinks == "learned" or None)
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


def _through(
    layers: tuple[Layer, ...] | None, params: tuple[PyTree, ...], both: tuple[Heads, ...]
) -> tuple[tuple[Heads, ...], tuple[PyTree, ...] | None]:
    """Queries and keys, each through its layer, if there are any, and what these keep."""
    if layers is None:
        return both, None
    pairs = [layer.forward(*one) for layer, *one in zip(layers, params, both, strict=True)]
    both, kept = zip(*pairs, strict=True)
    return both, kept
