"""linear_time_language_model: a decoder whose blocks mix tokens by recurrences in place of attention."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from handgrad.checks import check_choice, check_count
from handgrad.layers import (
    Layer,
    chain,
    delta_net,
    embedding,
    gated_linear_attention,
    gated_mlp,
    linear_attention,
    mamba,
    mamba2,
    repeat,
    residual,
    retention,
    rms_norm,
    rwkv_time_mixing,
)
from handgrad.models.head import Head, made_head

Mixer = Literal[
    "linear_attention",
    "retention",
    "gated_linear_attention",
    "rwkv_time_mixing",
    "delta_net",
    "gated_delta_net",
    "mamba",
    "mamba2",
]

# name: a layer from (batch, tokens, width) to the same, of a number of heads
MIXERS: dict[str, Callable[[int], Layer]] = {
    "linear_attention": linear_attention,
    "retention": retention,
    "gated_linear_attention": gated_linear_attention,
    "rwkv_time_mixing": rwkv_time_mixing,
    "delta_net": delta_net,
    "gated_delta_net": lambda heads: delta_net(heads, gated=True),
    "mamba": lambda heads: mamba(),
    "mamba2": mamba2,
}


@dataclass(frozen=True)
class LinearTimeLanguageModelConfig:
    """Sizes of a `linear_time_language_model`.

    Attributes:
      vocabulary: token ids are 0 … vocabulary − 1.
      width, blocks: features of a token, and how many blocks.
      mixer: the layer that mixes tokens, by its name.
      heads: of the mixer; Mamba has none.
      hidden: features of the gated mlp inside each block; None is no mlp, as in Mamba and Mamba-2.
      eps: the RMS norms add it to the mean square.
      residuals: of the blocks, "save" or "recompute", as `repeat`.
      head: "logits", or "projection" for a model that ends in a Projection and leaves its last product to the loss,
        `linear_cross_entropy` or `linear_log_probability`. Parameters are the same.
    """

    vocabulary: int
    width: int = 128
    blocks: int = 4
    mixer: Mixer = "gated_delta_net"
    heads: int = 4
    hidden: int | None = None
    eps: float = 1e-5
    residuals: Literal["save", "recompute"] = "save"
    head: Head = "logits"


def linear_time_language_model(config: LinearTimeLanguageModelConfig) -> Layer:
    """ids (batch, tokens) -> logits (batch, tokens, vocabulary), or a Projection: a decoder whose time and memory are
    linear in the tokens.

    Every block is x + mixer(norm(x)), then x + mlp(norm(x)) where there is an mlp. There are no positions: the mixers
    are recurrences, which know the order.

    Raises:
      InputError: another mixer; another head; heads that are no positive integer; at trace time, as the layers do.
    """
    check_choice("linear_time_language_model", "mixer", config.mixer, tuple(MIXERS))
    check_count("linear_time_language_model", "heads", config.heads)
    inside = {"mixer": MIXERS[config.mixer](config.heads)}
    if config.hidden is not None:
        inside["mlp"] = gated_mlp(config.hidden)
    block = chain(**{name: residual(chain(norm=rms_norm(eps=config.eps), mix=mix)) for name, mix in inside.items()})
    return chain(
        embedding=embedding(config.vocabulary, config.width),
        blocks=repeat(block, config.blocks, residuals=config.residuals),
        norm=rms_norm(eps=config.eps),
        head=made_head("linear_time_language_model", config.head, config.vocabulary),
    )
