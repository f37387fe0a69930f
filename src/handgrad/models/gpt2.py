"""gpt2: the decoder of Radford et al. 2019, from the rules alone."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Array

from handgrad.layers import (
    Layer,
    chain,
    dropout,
    gelu,
    layer_norm,
    linear,
    lora_linear,
    multi_head_attention,
    padded,
    position_embedding,
    repeat,
    residual,
    tied_embedding,
    told,
)
from handgrad.models.head import Head
from handgrad.models.state_table import StateTable, Weight


@dataclass(frozen=True)
class Gpt2Config:
    """Sizes of a GPT-2; the defaults are those of the smallest one published, 124 million parameters.

    Attributes:
      vocabulary: token ids are 0 … vocabulary − 1.
      tokens: the longest sequence that there are positions for.
      width, blocks, heads: features of a token, how many blocks, attention heads of each.
      dropout: rate after each branch and on attention's weights; a forward pass without a key has none.
      eps: layer norms add it to the variance.
      tile: a number recomputes attention's weights in tiles of that many tokens (flash attention); None does so where
        that is faster, and saves them where tokens are few.
      residuals: of the blocks, "save" or "recompute", as `repeat`.
      lora_rank: the rank of adapters beside every weight of the blocks, as `lora_linear` has them; None for none.
      head: "logits", or "projection" for a model that ends in a Projection and leaves its last product to the loss,
        `linear_cross_entropy` or `linear_log_probability`. Parameters are the same.
    """

    vocabulary: int = 50257
    tokens: int = 1024
    width: int = 768
    blocks: int = 12
    heads: int = 12
    dropout: float = 0.0
    eps: float = 1e-5
    tile: int | None = None
    residuals: Literal["save", "recompute"] = "save"
    lora_rank: int | None = None
    head: Head = "logits"


def gpt2(config: Gpt2Config = Gpt2Config()) -> Layer:
    """ids (batch, tokens) -> logits (batch, tokens, vocabulary), or a Projection: pre-norm blocks, learned positions,
    tied head.

    Every block is x + attention(norm(x)), then x + mlp(norm(x)), with gelu's tanh form. Names and shapes of the
    parameters: docs/models.md. A padded batch is Tokens(ids, mask) or Sequences(ids, lengths), as `padded` has it.

    Raises:
      InputError: heads don't divide the width; another head; at trace time, a sequence longer than `tokens`, and as
        the layers do.
    """
    return padded(partial(_gpt2, config))


def _gpt2(config: Gpt2Config, mask: Array | None, positions: Array | None) -> Layer:
    """The model of ids, with what attention and positions are told of them."""
    width, noise = config.width, dropout(config.dropout)
    rank = config.lora_rank
    attention = multi_head_attention(
        config.heads, causal=True, dropout=config.dropout, tile=config.tile, lora_rank=rank
    )

    def dense(n: int) -> Layer:
        return linear(n) if rank is None else lora_linear(n, rank=rank)

    block = chain(
        attention=residual(chain(norm=layer_norm(eps=config.eps), mix=told(attention, mask), dropout=noise)),
        mlp=residual(
            chain(
                norm=layer_norm(eps=config.eps),
                up=dense(4 * width),
                gelu=gelu(approximate=True),
                down=dense(width),
                dropout=noise,
            )
        ),
    )
    body = chain(
        positions=told(position_embedding(config.tokens), positions=positions),
        dropout=noise,
        blocks=repeat(block, config.blocks, residuals=config.residuals),
        norm=layer_norm(eps=config.eps),
    )
    return tied_embedding(config.vocabulary, width, body, head=config.head)


GPT2_STATE = StateTable(
    {
        "embedding.table": Weight("wte.weight", tied="lm_head.weight"),
        "body.positions.table": Weight("wpe.weight"),
        "body.blocks.attention.norm.gamma": Weight("h.{block}.ln_1.weight"),
        "body.blocks.attention.norm.beta": Weight("h.{block}.ln_1.bias"),
        "body.blocks.attention.mix.query.W": Weight("h.{block}.attn.c_attn.weight", third=0),
        "body.blocks.attention.mix.query.b": Weight("h.{block}.attn.c_attn.bias", third=0),
        "body.blocks.attention.mix.key.W": Weight("h.{block}.attn.c_attn.weight", third=1),
        "body.blocks.attention.mix.key.b": Weight("h.{block}.attn.c_attn.bias", third=1),
        "body.blocks.attention.mix.value.W": Weight("h.{block}.attn.c_attn.weight", third=2),
        "body.blocks.attention.mix.value.b": Weight("h.{block}.attn.c_attn.bias", third=2),
        "body.blocks.attention.mix.output.W": Weight("h.{block}.attn.c_proj.weight"),
        "body.blocks.attention.mix.output.b": Weight("h.{block}.attn.c_proj.bias"),
        "body.blocks.mlp.norm.gamma": Weight("h.{block}.ln_2.weight"),
        "body.blocks.mlp.norm.beta": Weight("h.{block}.ln_2.bias"),
        "body.blocks.mlp.up.W": Weight("h.{block}.mlp.c_fc.weight"),
        "body.blocks.mlp.up.b": Weight("h.{block}.mlp.c_fc.bias"),
        "body.blocks.mlp.down.W": Weight("h.{block}.mlp.c_proj.weight"),
        "body.blocks.mlp.down.b": Weight("h.{block}.mlp.c_proj.bias"),
        "body.norm.gamma": Weight("ln_f.weight"),
        "body.norm.beta": Weight("ln_f.bias"),
    },
    buffers={"h.{block}.attn.bias": "the causal mask", "h.{block}.attn.masked_bias": "the score of what it masks"},
)
"""Where each parameter is in the published state. Its weights are (n_in, n_out), as ours; query, key and value are
concatenated in one. With a head, the state may name the table twice."""
