"""Is a Llama better than a GPT-2 of its size, on the same bytes in as many steps?

RMS norms, rotary positions, grouped-query attention and SwiGLU instead of layer norms, learned positions, plain
attention and gelu.

    python experiments/llama_tiny.py
    handgrad compare runs/char_gpt runs/llama_tiny
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import language
import study
import training_run

from handgrad.models import LlamaConfig, llama


@dataclass(frozen=True)
class LlamaTiny(language.Training):
    """Train a Llama on text, byte by byte, by hand-written backpropagation."""

    layers: int = 4
    """Blocks."""
    width: int = 128
    """Features of a byte."""
    hidden: int = 344
    """Features inside the gated mlp of a block."""
    heads: int = 4
    """Attention heads of a block."""
    kv_heads: int = 2
    """Heads of keys and values, which the others share."""
    out: Path = Path("runs/llama_tiny")
    """The run's folder; a run with the same options is resumed."""


def run(options: LlamaTiny, progress: bool = True) -> dict[str, Any]:
    """Train; the figures."""
    corpus = language.begin("llama_tiny", options, "layers", "width", "hidden", "heads", "kv_heads")
    config = LlamaConfig(
        language.BYTES, options.width, options.hidden, options.layers, options.heads, options.kv_heads, 10_000.0
    )
    title = f"Llama in bytes: {options.layers} layers, width {options.width}, {options.tokens} tokens"
    with training_run.on_device(options.device):
        return language.run(language.Subject(title, llama(config)), corpus, options, progress)


if __name__ == "__main__":
    study.main(run, LlamaTiny)
