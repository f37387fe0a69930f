"""Decoders: GPT-2 and Llama."""

from typing import Any

from handgrad import layers
from handgrad.cli.bench.workload import Program, Workload, integers, of_model
from handgrad.models import Gpt2Config, LlamaConfig, gpt2, llama

IN_FLOAT32 = 1e-5  # jax.nn.dot_product_attention takes its softmax in float32, whatever the dtype


def of_gpt2(vocabulary: int, width: int, depth: int, heads: int, tokens: int, batch: int, **options: Any) -> Program:
    """The next id from those before it."""
    config = Gpt2Config(vocabulary, tokens, width, depth, heads, **options)
    loss = layers.softmax_cross_entropy() if config.head == "logits" else layers.linear_cross_entropy()
    ids = integers(1, vocabulary, batch, tokens + 1)
    return of_model(gpt2(config), loss, ids[:, :-1], ids[:, 1:])


def of_llama(
    vocabulary: int, width: int, hidden: int, depth: int, heads: int, kv_heads: int, tokens: int, batch: int
) -> Program:
    """The next id from those before it."""
    model = llama(LlamaConfig(vocabulary, width, hidden, depth, heads, kv_heads))
    ids = integers(1, vocabulary, batch, tokens + 1)
    return of_model(model, layers.softmax_cross_entropy(), ids[:, :-1], ids[:, 1:])


def _gpt2(name: str, width: int, depth: int, heads: int, tokens: int, batch: int, **rest: Any) -> Workload:
    sizes = {"vocabulary": rest.pop("vocabulary", 4096), "width": width, "depth": depth}
    sizes |= {"heads": heads, "tokens": tokens, "batch": batch}
    sizes |= {name: rest.pop(name) for name in ("residuals", "head") if name in rest}
    tiny = {"vocabulary": 11, "width": 8, "depth": 2, "heads": 2, "tokens": 6, "batch": 2}
    return Workload(
        f"gpt2-{name}", of_gpt2, sizes, tiny, ("gpt2", "gpt2_torch"), IN_FLOAT32, "residuals" in sizes, **rest
    )


WORKLOADS = (
    _gpt2("128x2", 128, 2, 4, 64, 8),
    _gpt2("256x4", 256, 4, 4, 128, 8),
    _gpt2("256x4-long", 256, 4, 4, 512, 2),
    _gpt2("256x4-recompute", 256, 4, 4, 128, 8, residuals="recompute", head="projection"),
    _gpt2("124m", 768, 12, 12, 512, 1, vocabulary=50257, heavy=True),
    Workload(
        "llama-256x4",
        of_llama,
        {
            **{"vocabulary": 4096, "width": 256, "hidden": 688, "depth": 4, "heads": 4, "kv_heads": 2},
            **{"tokens": 128, "batch": 8},
        },
        {
            **{"vocabulary": 11, "width": 8, "hidden": 12, "depth": 2, "heads": 2, "kv_heads": 1},
            **{"tokens": 6, "batch": 2},
        },
        ("llama", "llama_torch"),
        IN_FLOAT32,
    ),
)
