"""retention: linear attention whose heads forget at fixed rates."""

from typing import NamedTuple

import jax
import numpy as np

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._gated_heads import gated_heads
from handgrad.layers.sequences._mixing import Sizes, mixing, split_sizes

__all__ = ["RetentionParams", "retention"]


class RetentionParams(NamedTuple):
    """Parameters of `retention`: of five linear layers.

    Attributes:
      query, key: W (width, heads × head_size).
      value, gate: W (width, heads × value_size).
      output: W (heads × value_size, width).
    """

    query: LinearParams
    key: LinearParams
    value: LinearParams
    gate: LinearParams
    output: LinearParams


def retention(
    heads: int,
    *,
    head_size: int | None = None,
    value_size: int | None = None,
    rotary: float | None = 10000.0,
    eps: float = 1e-5,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = (silu(X W_gate) ∘ [N₁ … N_heads]) W_output, N_h head h's retention, each token of it to mean 0, variance 1.

    S_t = γ_h S_{t−1} + k_t v_tᵀ, y_t = S_tᵀ q_t / √n with γ_h = 1 − 2^(−5 − h) for h = 0, 1, …: (batch, tokens, width)
    to the same, in time and memory linear in the tokens.

    Args:
      heads: how many side by side.
      head_size, value_size: features of a head's queries and keys, and of its values; None is width / heads.
      rotary: the base of a rotary position embedding of queries and keys, or None for none.
      eps: of the norm, a positive number.
      chunk: as linear_attention_forward.
      init_W: initializer of the five weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/linear_attention.md (Sun et al. 2023)
    """
    where, sizes = "retention", split_sizes("retention", heads, head_size, value_size)

    def projections(of_x: Sizes) -> dict[str, Layer]:
        widths = {"query": of_x.keys, "key": of_x.keys, "value": of_x.values, "gate": of_x.values}
        return {name: linear(n, bias=False, init_W=init_W) for name, n in widths.items()}

    decay = np.log1p(-(2.0 ** (-5 - np.arange(heads))))
    norm = rules.layer_norm.with_options(eps=eps)
    mixer = gated_heads(where, heads, norm, decay=decay, rotary=rotary, affine=False, chunk=chunk)
    return mixing(where, RetentionParams, sizes, projections, mixer, init_W)
