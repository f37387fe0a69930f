"""A Llama's config from the config.json that was published with its weights, and that of its kin: Mistral, Qwen."""

from collections.abc import Mapping
from typing import Any

from handgrad.checks import InputError
from handgrad.models.llama import LlamaConfig
from handgrad.rules import LinearScaling, Llama3Scaling, NtkScaling, RotaryScaling, YarnScaling
from handgrad.rules.attention._speeds import yarn_size

__all__ = ["published_llama"]

KINDS = ("llama", "mistral", "qwen2", "qwen3")


def published_llama(published: Mapping[str, Any]) -> LlamaConfig:
    """The config of a model whose config.json this is, with the names that transformers gives them.

    >>> published = {"model_type": "qwen2", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 24,
    ...     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    >>> config = published_llama(published)
    >>> config.bias, config.tied, config.rotary_base
    ('qkv', True, 10000.0)

    Args:
      published: `json.loads` of the file. Its model_type is llama, mistral, qwen2 or qwen3.
    Raises:
      InputError: another model, or one with an option that ours doesn't have; a size that isn't there.
    """
    where = "published_llama"
    kind = published.get("model_type", "llama")
    if kind not in KINDS:
        raise InputError(f"{where}: model_type must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, wanted in (("hidden_act", "silu"), ("mlp_bias", False), ("use_sliding_window", False)):
        if published.get(name, wanted) != wanted:
            raise InputError(f"{where}: {name} must be {wanted!r}, got {published[name]!r}")
    sizes = "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"
    if absent := [name for name in sizes if name not in published]:
        raise InputError(f"{where}: the config must have {', '.join(absent)}, got none")
    vocabulary, width, hidden, blocks, heads = (published[name] for name in sizes)
    rotary = published.get("rope_parameters") or published.get("rope_scaling") or {}
    size = published.get("head_dim") or width // heads
    share = rotary.get("partial_rotary_factor", published.get("partial_rotary_factor", 1.0))
    return LlamaConfig(
        vocabulary=vocabulary,
        width=width,
        hidden=hidden,
        blocks=blocks,
        heads=heads,
        kv_heads=published.get("num_key_value_heads") or heads,
        rotary_base=float(rotary.get("rope_theta", published.get("rope_theta", 10000.0))),
        eps=published.get("rms_norm_eps", 1e-6),
        head_size=published.get("head_dim"),
        rotary_scaling=_scaling(where, rotary, published.get("max_position_embeddings")),
        rotary_features=None if share == 1 else int(size * share),
        window=published.get("sliding_window") if kind == "mistral" else None,
        bias="qkv" if kind == "qwen2" else bool(published.get("attention_bias", False)),
        qk_norm=kind == "qwen3",
        tied=bool(published.get("tie_word_embeddings", False)),
    )


def _scaling(where: str, rotary: Mapping[str, Any], max_tokens: int | None) -> RotaryScaling | None:
    """rope_scaling, whose type is under one of two names."""
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind == "default":
        return None
    factor: Any = rotary.get("factor")
    tokens = rotary.get("original_max_position_embeddings", max_tokens)
    for name, value in (("factor", factor), ("original_max_position_embeddings", tokens or kind == "linear")):
        if not value:
            raise InputError(f"{where}: rope_scaling must have {name}, got none")
    if kind == "linear":
        return LinearScaling(factor)
    if kind == "dynamic":
        return NtkScaling(factor, tokens)
    if kind == "llama3":
        return Llama3Scaling(factor, tokens, rotary.get("low_freq_factor", 1.0), rotary.get("high_freq_factor", 4.0))
    if kind == "yarn":
        size, m, m_all = (rotary.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
        if size is None and m and m_all:
            size = yarn_size(factor, m) / yarn_size(factor, m_all)
        fast, slow = rotary.get("beta_fast") or 32.0, rotary.get("beta_slow") or 1.0
        return YarnScaling(factor, tokens, fast, slow, size, rotary.get("truncate", True))
    raise InputError(f"{where}: rope_type must be linear, dynamic, yarn or llama3, got {kind!r}")
