"""The options of the language models' studies, and the text that they name."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import study

from handgrad.checks import InputError, check_positive
from handgrad.training import load_text, windows
from handgrad.training.evaluation import Pair


@dataclass(frozen=True)
class Training:
    """The text, and how to train on it."""

    text: Path | None = None
    """A file or a folder to read; the Python standard library without it."""
    files: str = "*.py"
    """Which files of a folder and the folders below it."""
    tokens: int = 128
    """Bytes in a window of the text."""
    batch: int = 16
    """Windows in a mini-batch."""
    epochs: int = 10
    """How often to stop for a line of metrics. The learning rate follows all steps, so a resumed run keeps it."""
    steps: int = 400
    """Steps in an epoch."""
    minutes: float | None = None
    """Stop after the epoch in which so many minutes have passed."""
    learning_rate: float = 3e-3
    """Of AdamW: rises at first, then falls to a tenth along a cosine."""
    warmup: int | None = None
    """Steps in which it rises; without it 200, or a tenth of all steps where that is fewer."""
    weight_decay: float = 0.1
    """Of weight matrices."""
    by: Literal["hand", "autodiff"] = "hand"
    """Whose gradients to train by."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of both passes; parameters stay in float32."""
    seed: int = 0
    """Of the initial parameters, the order of the text and the sample."""
    device: str | None = None
    """cpu, gpu or tpu; without it JAX's default."""
    prompt: str = "def "
    """How the sample begins."""
    sample: int = 400
    """Bytes to sample from the trained model."""
    temperature: float = 0.8
    """Of the sample: below 1 keeps to what is likely."""
    compare: int | None = None
    """Instead of a run, take so many steps by hand and by autodiff."""
    out: Path = Path("runs/language")
    """The run's folder; a run with the same options is resumed."""


class Corpus(NamedTuple):
    """A text in windows.

    Attributes:
      train, held_out: (x, target), each byte's target being the next byte.
      identity: what tells it from another text.
    """

    train: Pair
    held_out: Pair
    identity: dict[str, int]


def warmup_of(options: Training) -> int:
    """Steps in which the learning rate rises."""
    return min(200, options.epochs * options.steps // 10) if options.warmup is None else options.warmup


def begin(name: str, options: Training, *counts: str) -> Corpus:
    """Check the options (`counts` are the study's own), and read the text.

    Raises:
      InputError: an option makes no sense; as `load_text` and `windows`.
    """
    compare = ("compare",) if options.compare is not None else ()
    study.begin(name, options, "tokens", "batch", "epochs", "steps", "sample", *compare, *counts)
    minutes = ("minutes",) if options.minutes is not None else ()
    for field in ("learning_rate", "temperature", *minutes):
        check_positive(name, field, getattr(options, field))
    for field in ("seed", "weight_decay"):
        if not getattr(options, field) >= 0:
            raise InputError(f"{name}: {field} must be at least 0, got {getattr(options, field)}")
    total, warmup = options.epochs * options.steps, warmup_of(options)
    if not 0 <= warmup < total:
        raise InputError(f"{name}: warmup must be less than all {total} steps, got {warmup}")
    if not 0 < len(options.prompt.encode()) <= options.tokens:
        raise InputError(f"{name}: prompt must have 1 to {options.tokens} bytes, got {options.prompt!r}")
    text = load_text(options.text, pattern=options.files)
    checksum = zlib.crc32(text.held_out.tobytes(), zlib.crc32(text.train.tobytes()))
    identity = {"train": len(text.train), "held_out": len(text.held_out), "crc32": checksum}
    return Corpus(windows(text.train, options.tokens), windows(text.held_out, options.tokens), identity)
