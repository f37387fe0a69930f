"""llama: the decoder of Touvron et al. 2023, from the rules alone."""

from dataclasses import dataclass
from typing import Literal

from handgrad.layers import Layer, chain, embedding, gated_mlp, linear, multi_head_attention, repeat, residual, rms_norm
from handgrad.models.state_table import TRANSPOSED, StateTable, Weight


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama; the defaults are those of Llama 3 with 8 billion parameters.

    Attributes:
      vocabulary: token ids are 0 … vocabulary − 1.
      width, hidden, blocks: features of a token, of the gated mlp inside each block, and how many blocks.
      heads, kv_heads: query heads, and the fewer heads of keys and values that they share.
      rotary_base: θ of the rotary positions.
      eps: the RMS norms add it to the mean square.
      tile: a number recomputes attention's weights in tiles of that many tokens (flash attention); None does so where
        that is faster, and saves them where tokens are few.
      residuals: of the blocks, "save" or "recompute", as `repeat`.
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


def llama(config: LlamaConfig = LlamaConfig()) -> Layer:
    """ids (batch, tokens) -> logits (batch, tokens, vocabulary): RMS norms, rotary positions, grouped-query attention,
    SwiGLU, an untied head, no bias anywhere.

    Every block is x + attention(norm(x)), then x + mlp(norm(x)). Names and shapes of the parameters: docs/models.md.

    Raises:
      InputError: heads don't divide the width, or kv_heads the heads; at trace time, as the layers do.
    """
    attention = multi_head_attention(
        config.heads, kv_heads=config.kv_heads, causal=True, bias=False, rotary=config.rotary_base, tile=config.tile
    )
    block = chain(
        attention=residual(chain(norm=rms_norm(eps=config.eps), mix=attention)),
        mlp=residual(chain(norm=rms_norm(eps=config.eps), mix=gated_mlp(config.hidden))),
    )
    return chain(
        embedding=embedding(config.vocabulary, config.width),
        blocks=repeat(block, config.blocks, residuals=config.residuals),
        norm=rms_norm(eps=config.eps),
        head=linear(config.vocabulary, bias=False),
    )


# Where each parameter is in the published state, whose weights are (n_out, n_in): the transposes of ours. Rotary
# positions rotate the two halves of a head, the form of this state's queries and keys. A tied head has no entry; ours
# then starts as the embedding.
LLAMA_STATE = StateTable(
    {
        "embedding.table": Weight("model.embed_tokens.weight"),
        "blocks.attention.norm.gamma": Weight("model.layers.{block}.input_layernorm.weight"),
        "blocks.attention.mix.query.W": Weight("model.layers.{block}.self_attn.q_proj.weight", TRANSPOSED),
        "blocks.attention.mix.key.W": Weight("model.layers.{block}.self_attn.k_proj.weight", TRANSPOSED),
        "blocks.attention.mix.value.W": Weight("model.layers.{block}.self_attn.v_proj.weight", TRANSPOSED),
        "blocks.attention.mix.output.W": Weight("model.layers.{block}.self_attn.o_proj.weight", TRANSPOSED),
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
