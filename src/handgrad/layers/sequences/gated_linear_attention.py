"""gated_linear_attention: linear attention whose features forget at rates that the token sets."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PyTree

from handgrad import rules
from handgrad.checks import check_count, check_positive
from handgrad.layers.layer import Layer, from_rule
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._gated_heads import GatedHeadsParams, gated_heads
from handgrad.layers.sequences._mixing import Sizes, mixing, split_sizes
from handgrad.layers.structure.chain import chain
from handgrad.rule import Rule

__all__ = ["GatedLinearAttentionParams", "gated_linear_attention"]

Logits = Float[Array, "batch tokens n"]


class GatedLinearAttentionParams(NamedTuple):
    """Parameters of `gated_linear_attention`.

    Attributes:
      query, key: W (width, heads × head_size).
      value: W (width, heads × value_size).
      decay: of two linears, "down" W (width, rank) and "up" W (rank, heads × head_size), b.
      gate: W (width, heads × value_size).
      mixer: gamma, the scale of the normalized heads.
      output: W (heads × value_size, width).
    """

    query: LinearParams
    key: LinearParams
    value: LinearParams
    decay: dict[str, PyTree]
    gate: LinearParams
    mixer: GatedHeadsParams
    output: LinearParams


def gated_linear_attention(
    heads: int,
    *,
    head_size: int | None = None,
    value_size: int | None = None,
    rank: int = 16,
    temperature: float = 16.0,
    eps: float = 1e-6,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = (silu(X W_gate) ∘ [N₁ … N_heads] ∘ γ) W_output, N_h head h's linear attention, each token of it to root mean
    square 1.

    S_t = a_t ∘ S_{t−1} + k_t v_tᵀ, y_t = S_tᵀ q_t / √n with a_t = σ(x_t W_down W_up + b)^(1 / temperature), one for
    each feature of the keys: (batch, tokens, width) to the same, in time and memory linear in the tokens.

    Args:
      heads: how many side by side.
      head_size: features of a head's queries and keys; None is width / (2 heads).
      value_size: features of its values; None is width / heads.
      rank: of the map from a token to its decays.
      temperature: a positive number; a large one makes the decays slow to begin with.
      eps: of the norm, a positive number.
      chunk: as linear_attention_forward.
      init_W: initializer of the weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/linear_attention.md (Yang et al. 2024)
    """
    where = "gated_linear_attention"
    sizes = split_sizes(where, heads, head_size, value_size, share=2)
    check_count(where, "rank", rank)
    check_positive(where, "temperature", temperature)

    def projections(of_x: Sizes) -> dict[str, Layer]:
        down, up = linear(rank, bias=False, init_W=init_W), linear(of_x.keys, init_W=init_W)
        return {
            "query": linear(of_x.keys, bias=False, init_W=init_W),
            "key": linear(of_x.keys, bias=False, init_W=init_W),
            "value": linear(of_x.values, bias=False, init_W=init_W),
            "decay": chain(down=down, up=up, log=from_rule(_log_sigmoid(temperature))),
            "gate": linear(of_x.values, bias=False, init_W=init_W),
        }

    mixer = gated_heads(where, heads, rules.rms_norm.with_options(eps=eps), chunk=chunk)
    return mixing(where, GatedLinearAttentionParams, sizes, projections, mixer, init_W)


def _log_sigmoid(temperature: float) -> Rule[..., Logits]:
    """log σ(Z)^(1 / temperature) = −softplus(−Z) / temperature."""

    def forward(Z: Logits) -> tuple[Logits, rules.SoftplusResiduals]:
        Y, kept = rules.softplus.forward(-Z)
        return -Y / temperature, kept

    def backward(kept: rules.SoftplusResiduals, dY: Logits) -> tuple[Logits]:
        (dZ,) = rules.softplus.backward(kept, dY)
        return (dZ / temperature,)

    return Rule(forward, backward)
