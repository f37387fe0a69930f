"""llama: the decoder of Touvron et al. 2023, from the rules alone; with its kin's biases, norms and rotations."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Array

from handgrad.layers import (
    Layer,
    chain,
    embedding,
    gated_mlp,
    multi_head_attention,
    padded,
    repeat,
    residual,
    rms_norm,
    shared,
    told,
)
from handgrad.models.head import Head, made_head
from handgrad.models.state_table import TRANSPOSED, StateTable, Weight
from handgrad.rules import RotaryScaling


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama; the defaults are those of Llama 3 with 8 billion parameters.

    `published_llama` reads one from a published config.json.

    Attributes:
      vocabulary: token ids are 0 … vocabulary − 1.
      width, hidden, blocks: features of a token, of the gated mlp inside each block, and how many blocks.
      heads, kv_heads: query heads, and the fewer heads of keys and values that they share.
      rotary_base: θ of the rotary positions.
      eps: the RMS norms add it to the mean square.
      tile: a number recomputes attention's weights in tiles of that many tokens (flash attention); None does so where
        that is faster, and saves them where tokens are few.
      residuals: of the blocks, "save" or "recompute", as `repeat`.
      head_size: features of a head; None is width / heads.
      rotary_scaling, rotary_features: scaling and features of `rules.rotary`.
      window: a query sees the last so many keys (Mistral's sliding window); None is all before it.
      bias: attention's biases: "qkv" for those of queries, keys and values (Qwen 2), True for all four.
      qk_norm: whether each head's queries and keys have an RMS norm (Qwen 3).
      tied: whether the head's weights are the embedding's table.
      head: "logits", or "projection" for a model that ends in a Projection and leaves its last product to the loss,
        `linear_cross_entropy` or `linear_log_probability`. Parameters are the same.
    """

    vocabulary: int = 128256
    width: int = 4096
    hidden: int = 14336
    blocks: int = 32
    heads: int = 32
    kv_heads: int = 8
    rotary_base: float = 500000.0
    eps: float = 1e-5
    tile: int | None = None
    residuals: Literal["save", "recompute"] = "save"
    head_size: int | None = None
    rotary_scaling: RotaryScaling | None = None
    rotary_features: int | None = None
    window: int | None = None
    bias: bool | Literal["qkv"] = False
    qk_norm: bool = False
    tied: bool = False
    head: Head = "logits"


def llama(config: LlamaConfig = LlamaConfig()) -> Layer:
    """ids (batch, tokens) -> logits (batch, tokens, vocabulary), or a Projection: RMS norms, rotary positions,
    grouped-query attention, SwiGLU; an untied head and no bias anywhere, if the config doesn't say otherwise.

    Every block is x + attention(norm(x)), then x + mlp(norm(x)). Names and shapes of the parameters: docs/models.md. A
    padded batch is Tokens(ids, mask) or Sequences(ids, lengths), as `padded` has it.

    Raises:
      InputError: heads don't divide the width, or kv_heads the heads; another head; at trace time, as the layers do.
    """
    return padded(partial(_llama, config))


def _llama(config: LlamaConfig, mask: Array | None, positions: Array | None) -> Layer:
    """The model of ids, with what attention is told of them."""
    attention = multi_head_attention(
        config.heads,
        kv_heads=config.kv_heads,
        head_size=config.head_size,
        causal=True,
        window=config.window,
        bias=config.bias,
        rotary={"base": config.rotary_base, "scaling": config.rotary_scaling, "features": config.rotary_features},
        qk_norm=rms_norm(eps=config.eps) if config.qk_norm else None,
        tile=config.tile,
    )
    block = chain(
        attention=residual(chain(norm=rms_norm(eps=config.eps), mix=told(attention, mask, positions))),
        mlp=residual(chain(norm=rms_norm(eps=config.eps), mix=gated_mlp(config.hidden))),
    )
    model = chain(
        embedding=embedding(config.vocabulary, config.width),
        blocks=repeat(block, config.blocks, residuals=config.residuals),
        norm=rms_norm(eps=config.eps),
        head=made_head("llama", config.head, config.vocabulary, tied=config.tied),
    )
    return shared(model, {"head": "embedding"}) if config.tied else model


LLAMA_STATE = StateTable(
    {
        "embedding.table": Weight("model.embed_tokens.weight"),
        "blocks.attention.norm.gamma": Weight("model.layers.{block}.input_layernorm.weight"),
        "blocks.attention.mix.query.W": Weight("model.layers.{block}.self_attn.q_proj.weight", TRANSPOSED),
        "blocks.attention.mix.key.W": Weight("model.layers.{block}.self_attn.k_proj.weight", TRANSPOSED),
        "blocks.attention.mix.value.W": Weight("model.layers.{block}.self_attn.v_proj.weight", TRANSPOSED),
        "blocks.attention.mix.output.W": Weight("model.layers.{block}.self_attn.o_proj.weight", TRANSPOSED),
        "blocks.attention.mix.query.b": Weight("model.layers.{block}.self_attn.q_proj.bias"),
        "blocks.attention.mix.key.b": Weight("model.layers.{block}.self_attn.k_proj.bias"),
        "blocks.attention.mix.value.b": Weight("model.layers.{block}.self_attn.v_proj.bias"),
        "blocks.attention.mix.output.b": Weight("model.layers.{block}.self_attn.o_proj.bias"),
        "blocks.attention.mix.query_norm.gamma": Weight("model.layers.{block}.self_attn.q_norm.weight"),
        "blocks.attention.mix.key_norm.gamma": Weight("model.layers.{block}.self_attn.k_norm.weight"),
        "blocks.mlp.norm.gamma": Weight("model.layers.{block}.post_attention_layernorm.weight"),
        "blocks.mlp.mix.gate.W": Weight("model.layers.{block}.mlp.gate_proj.weight", TRANSPOSED),
        "blocks.mlp.mix.up.W": Weight("model.layers.{block}.mlp.up_proj.weight", TRANSPOSED),
        "blocks.mlp.mix.down.W": Weight("model.layers.{block}.mlp.down_proj.weight", TRANSPOSED),
        "norm.gamma": Weight("model.norm.weight"),
        "head.W": Weight("lm_head.weight", TRANSPOSED, tied="model.embed_tokens.weight"),
    },
    buffers={
        "model.rotary_emb.inv_freq": "the rotary frequencies",
        "model.layers.{block}.self_attn.rotary_emb.inv_freq": "the rotary frequencies",
    },
)
"""Where each parameter is in the published state, whose weights are (n_out, n_in): the transposes of ours. Rotary
positions rotate the two halves of a head, the form of this state's queries and keys. A tied head has no entry; an
untied one of ours then starts as the embedding."""


def llama_state(config: LlamaConfig) -> StateTable:
    """LLAMA_STATE, and for a tied head one in which the table may have the head's name, or both, as published."""
    if not config.tied:
        return LLAMA_STATE
    table = Weight("model.embed_tokens.weight", tied="lm_head.weight")
    return StateTable({**LLAMA_STATE, "embedding.table": table}, LLAMA_STATE.buffers)
