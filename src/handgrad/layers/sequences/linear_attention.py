"""linear_attention: attention whose past is one matrix for each head, normalized by the sum of its weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._mixing import Heads, Sizes, Tokens, by_head, mixing, side_by_side, split_sizes
from handgrad.rule import Rule

__all__ = ["LinearAttentionParams", "linear_attention"]


class LinearAttentionParams(NamedTuple):
    """Parameters of `linear_attention`: of four linear layers.

    Attributes:
      query, key: W (width, heads × head_size).
      value: W (width, heads × value_size).
      output: W (heads × value_size, width).
    """

    query: LinearParams
    key: LinearParams
    value: LinearParams
    output: LinearParams


class NormalizedResiduals(NamedTuple):
    """Q, K: what φ keeps; attention: what the rule keeps, of [V 1]; total: Σ of the weights + eps; Y: before W."""

    Q: rules.EluResiduals
    K: rules.EluResiduals
    attention: rules.LinearAttentionResiduals
    total: Heads
    Y: Heads


def linear_attention(
    heads: int,
    *,
    head_size: int | None = None,
    value_size: int | None = None,
    eps: float = 1e-6,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """y_t = Σ_{s ≤ t} (φ(q_t) · φ(k_s)) v_s / (Σ_{s ≤ t} φ(q_t) · φ(k_s) + eps) for each head, φ = elu + 1; then W.

    Causal attention in time and memory linear in the tokens, (batch, tokens, width) to the same. Both sums are one
    linear attention, of values with a 1 behind them.

    Args:
      heads: how many side by side.
      head_size, value_size: features of a head's queries and keys, and of its values; None is width / heads.
      eps: positive number.
      chunk: as linear_attention_forward.
      init_W: initializer of the four weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/linear_attention.md (Katharopoulos et al. 2020)
    """

    def projections(sizes: Sizes) -> dict[str, Layer]:
        return {
            "query": linear(sizes.keys, bias=False, init_W=init_W),
            "key": linear(sizes.keys, bias=False, init_W=init_W),
            "value": linear(sizes.values, bias=False, init_W=init_W),
        }

    where = "linear_attention"
    mixer = from_rule(_normalized(heads, eps, chunk))
    sizes = split_sizes(where, heads, head_size, value_size)
    return mixing(where, LinearAttentionParams, sizes, projections, mixer, init_W)


def _normalized(heads: int, eps: float, chunk: int | None) -> Rule[..., Tokens]:
    """Of queries, keys and values side by side: the values' mean, weighted by φ(q) · φ(k)."""
    phi, attend = rules.elu, rules.linear_attention.with_options(chunk=chunk)

    def forward(x: tuple[Tokens, Tokens, Tokens]) -> tuple[Tokens, NormalizedResiduals]:
        (Q, kept_Q), (K, kept_K) = (phi.forward(by_head(A, heads)) for A in x[:2])
        V = by_head(x[2], heads)
        V = jnp.concatenate([V, jnp.ones_like(V[..., :1])], axis=3)
        (sums, _), kept = attend.forward(Q + 1, K + 1, V)
        total = sums[..., -1:] + eps
        Y = sums[..., :-1] / total
        return side_by_side(Y), NormalizedResiduals(kept_Q, kept_K, kept, total, Y)

    def backward(residuals: NormalizedResiduals, dY: Tokens) -> tuple[tuple[Tokens, ...]]:
        kept_Q, kept_K, kept, total, Y = residuals
        dsums = by_head(dY, heads) / total
        dtotal = -jnp.sum(dsums * Y, axis=3, keepdims=True)
        no_state = jnp.zeros_like(kept.S[0])
        dQ, dK, dV, *_ = attend.backward(kept, (jnp.concatenate([dsums, dtotal], axis=3), no_state))
        (dQ,), (dK,) = phi.backward(kept_Q, dQ), phi.backward(kept_K, dK)
        return (tuple(side_by_side(d) for d in (dQ, dK, dV[..., :-1])),)

    return Rule(forward, backward)
