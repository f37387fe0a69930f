"""How many nats does a small GPT-2, trained by hand, need for a byte of Python that it has not read?

A decoder of GPT-2's shape at any size, on any text; by default the Python standard library, whose every twentieth file
is held out. Started again with the same options, an interrupted run goes on.

    python experiments/char_gpt.py
    python experiments/char_gpt.py --text BOOK.txt --layers 8 --width 512 --heads 8 --tokens 256 --device gpu
    python experiments/char_gpt.py --compare 100
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import language
import study
import training_run

from handgrad.models import GPT2_STATE, Gpt2Config, gpt2, save


@dataclass(frozen=True)
class CharGpt(language.Training):
    """Train a GPT-2 on text, byte by byte, by hand-written backpropagation."""

    layers: int = 4
    """Blocks."""
    width: int = 128
    """Features of a byte."""
    heads: int = 4
    """Attention heads of a block."""
    dropout: float = 0.0
    """Rate after each branch of a block, and on attention's weights."""
    out: Path = Path("runs/char_gpt")
    """The run's folder; a run with the same options is resumed."""


def run(options: CharGpt, progress: bool = True) -> dict[str, Any]:
    """Train; the figures. The weights go to model.safetensors, with the names of GPT-2's published ones."""
    corpus = language.begin("char_gpt", options, "layers", "width", "heads")
    config = Gpt2Config(
        language.BYTES, options.tokens, options.width, options.layers, options.heads, dropout=options.dropout
    )
    title = f"GPT-2 in bytes: {options.layers} layers, width {options.width}, {options.tokens} tokens"
    with training_run.on_device(options.device):
        figures = language.run(language.Subject(title, gpt2(config)), corpus, options, progress)
    if not options.compare:
        save(GPT2_STATE, figures["params"], options.out / "model.safetensors")
    return figures


if __name__ == "__main__":
    study.main(run, CharGpt)
