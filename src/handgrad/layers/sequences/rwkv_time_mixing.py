"""rwkv_time_mixing: linear attention with decays that the token sets, a bonus, and projections of shifted tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import check_count
from handgrad.layers.activations.smooth import tanh
from handgrad.layers.layer import Layer, from_rule
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._gated_heads import GatedHeadsParams, gated_heads
from handgrad.layers.sequences._mixing import Sizes, mixing, split_sizes
from handgrad.layers.sequences.token_shift import token_shift
from handgrad.layers.structure.chain import chain
from handgrad.rule import Rule

__all__ = ["RwkvTimeMixingParams", "rwkv_time_mixing"]

Logits = Float[Array, "batch tokens n"]


class RwkvTimeMixingParams(NamedTuple):
    """Parameters of `rwkv_time_mixing`. Each projection is of shifted tokens: "shift", its mu, and "linear".

    Attributes:
      receptance, key: W (width, heads × head_size).
      value: W (width, heads × value_size).
      decay: "shift", "down" W (width, rank) and "up" W (rank, heads × head_size), b.
      gate: W (width, heads × value_size).
      mixer: gamma and beta of the normalized heads, and the bonus.
      output: W (heads × value_size, width).
    """

    receptance: dict[str, PyTree]
    key: dict[str, PyTree]
    value: dict[str, PyTree]
    decay: dict[str, PyTree]
    gate: dict[str, PyTree]
    mixer: GatedHeadsParams
    output: LinearParams


def rwkv_time_mixing(
    heads: int,
    *,
    head_size: int | None = None,
    value_size: int | None = None,
    rank: int = 64,
    eps: float = 64e-5,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_bonus: Initializer = jax.nn.initializers.constant(0.5),
) -> Layer:
    """Y = (silu(G) ∘ ([N₁ … N_heads] ∘ γ + β)) W_output, N_h head h's weighted past, each token of it to mean 0 and
    variance 1.

    S_t = a_t ∘ S_{t−1} + k_t v_tᵀ, y_t = (S_{t−1} + u ∘ k_t v_tᵀ)ᵀ r_t with log a_t = −exp(tanh(z_t W_down) W_up + b),
    one for each feature of the keys, and u the bonus. Receptances r (RWKV's queries), k, v, G and z are made of tokens
    that `token_shift` has mixed with the one before, each with its own shares. It is RWKV-6's time mixing but for
    these shares, which there depend on the token too. (batch, tokens, width) to the same.

    Args:
      heads: how many side by side.
      head_size, value_size: features of a head's receptances and keys, and of its values; None is width / heads.
      rank: of the map from a token to its decays.
      eps: of the norm, a positive number.
      chunk: as linear_attention_forward.
      init_W: initializer of the weights, (key, shape, dtype) -> array. The bias of the decays begins at −6 … −1, from
        slow to fast.
      init_bonus: initializer of u.
    Derivation: docs/derivations/sequences/linear_attention.md (Peng et al. 2024)
    """
    where, sizes = "rwkv_time_mixing", split_sizes("rwkv_time_mixing", heads, head_size, value_size)
    check_count(where, "rank", rank)

    def projections(of_x: Sizes) -> dict[str, Layer]:
        widths = {"receptance": of_x.keys, "key": of_x.keys, "value": of_x.values, "gate": of_x.values}
        found = {
            name: chain(shift=token_shift(), linear=linear(n, bias=False, init_W=init_W)) for name, n in widths.items()
        }
        down, up = linear(rank, bias=False, init_W=init_W), linear(of_x.keys, init_W=init_W, init_b=_slow_to_fast)
        found["decay"] = chain(shift=token_shift(), down=down, tanh=tanh(), up=up, log=from_rule(_log_decay))
        return {name: found[name] for name in ("receptance", "key", "value", "decay", "gate")}

    norm = rules.layer_norm.with_options(eps=eps)
    mixer = gated_heads(where, heads, norm, scaled=False, shift=True, init_bonus=init_bonus, chunk=chunk)
    return mixing(where, RwkvTimeMixingParams, sizes, projections, mixer, init_W)


def _slow_to_fast(key: PRNGKeyArray, shape: Sequence[Any], dtype: Any = None, out_sharding: Any = None) -> Array:
    return jnp.linspace(-6, -1, shape[0], dtype=dtype)


def _log_decay_forward(Z: Logits) -> tuple[Logits, Logits]:
    """−e^Z, which is kept."""
    Y = -jnp.exp(Z)
    return Y, Y


def _log_decay_backward(Y: Logits, dY: Logits) -> tuple[Logits]:
    """dZ = dY ∘ Y."""
    return (dY * Y,)


_log_decay = Rule(_log_decay_forward, _log_decay_backward)
