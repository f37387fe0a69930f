"""How near does a model whose time is linear in the tokens come to a transformer of its size, on the same bytes?

Blocks with a gated delta rule, or another recurrence, in the place of attention; text and options are char_gpt's.

    python experiments/char_linear_attention.py
    python experiments/char_linear_attention.py --mixer mamba --out runs/char_mamba
    handgrad compare runs/char_gpt runs/char_linear_attention
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import language
import study
import training_run

from handgrad.models import LinearTimeLanguageModelConfig, linear_time_language_model
from handgrad.models.linear_time_language_model import Mixer


@dataclass(frozen=True)
class CharLinearAttention(language.Training):
    """Train a model of linear time on text, byte by byte, by hand-written backpropagation."""

    mixer: Mixer = "gated_delta_net"
    """What mixes tokens."""
    layers: int = 4
    """Blocks."""
    width: int = 128
    """Features of a byte."""
    heads: int = 4
    """Heads of a block."""
    hidden: int | None = 344
    """Features inside the gated mlp of a block; None for no mlp."""
    out: Path = Path("runs/char_linear_attention")
    """The run's folder; a run with the same options is resumed."""


def run(options: CharLinearAttention, progress: bool = True) -> dict[str, Any]:
    """Train; the figures."""
    hidden = ("hidden",) if options.hidden is not None else ()
    corpus = language.begin("char_linear_attention", options, "layers", "width", "heads", *hidden)
    config = LinearTimeLanguageModelConfig(
        language.BYTES, options.width, options.layers, options.mixer, options.heads, options.hidden
    )
    title = f"{options.mixer} in bytes: {options.layers} layers, width {options.width}, {options.tokens} tokens"
    with training_run.on_device(options.device):
        return language.run(language.Subject(title, linear_time_language_model(config)), corpus, options, progress)


if __name__ == "__main__":
    study.main(run, CharLinearAttention)
