"""How near does a recurrent network come to a transformer of its size, on the same bytes?

An LSTM language model, which char_gpt's text, options and folder fit.

    python experiments/char_lstm.py
    handgrad compare runs/char_gpt runs/char_lstm
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import language
import study
import training_run

from handgrad.models import LstmLanguageModelConfig, lstm_language_model


@dataclass(frozen=True)
class CharLstm(language.Training):
    """Train an LSTM on text, byte by byte, by hand-written backpropagation through time."""

    layers: int = 2
    """LSTM layers on top of each other."""
    width: int = 256
    """Features of a byte, and of each layer's state."""
    truncate: int | None = None
    """Stop gradients every so many bytes (truncated BPTT)."""
    out: Path = Path("runs/char_lstm")
    """The run's folder; a run with the same options is resumed."""


def run(options: CharLstm, progress: bool = True) -> dict[str, Any]:
    """Train; the figures."""
    corpus = language.begin("char_lstm", options, "layers", "width")
    config = LstmLanguageModelConfig(language.BYTES, options.width, options.layers, options.truncate)
    title = f"LSTM in bytes: {options.layers} layers, width {options.width}, {options.tokens} tokens"
    with training_run.on_device(options.device):
        return language.run(language.Subject(title, lstm_language_model(config)), corpus, options, progress)


if __name__ == "__main__":
    study.main(run, CharLstm)
