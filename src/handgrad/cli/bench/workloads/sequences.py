"""Recurrent layers at three sizes, an LSTM language model, and a recommender that is mostly tables."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from handgrad import layers
from handgrad.cli.bench.workload import Program, Workload, integers, normal, of_model
from handgrad.layers import Layer
from handgrad.models import LstmLanguageModelConfig, lstm_language_model

CELLS = {"rnn": layers.rnn, "lstm": layers.lstm, "gru": layers.gru}
SIZES = {"small": (32, 16, 64), "medium": (64, 32, 128), "large": (128, 32, 256)}  # time, batch, width


def recurrent(cell: str, time: int, batch: int, width: int, **options: Any) -> Program:
    """One layer over time, and the squared error of every step."""
    x, target = normal(1, batch, time, width), normal(2, batch, time, width)
    return of_model(CELLS[cell](width, **options), layers.squared_error(), x, target)


def language_model(vocabulary: int, width: int, depth: int, time: int, batch: int) -> Program:
    """An embedding, stacked LSTM layers and a head: the next id from those before it."""
    model = lstm_language_model(LstmLanguageModelConfig(vocabulary, width, depth))
    ids = integers(1, vocabulary, batch, time + 1)
    return of_model(model, layers.softmax_cross_entropy(), ids[:, :-1], ids[:, 1:])


def recommender(tables: int, rows: int, width: int, hidden: tuple[int, ...], batch: int) -> Program:
    """As DLRM (Naumov et al. 2019): categories through tables, numbers through an mlp, both through another.

    The tables are one, each category's ids after those of the one before; what they meet in is joined, not multiplied.
    """
    bottom = layers.chain(layers.linear(hidden[0]), layers.relu(), layers.linear(width))
    meeting = layers.branches(bottom, layers.embedding(tables * rows, width, dtype=np.float32))
    top = [layer for n in hidden for layer in (layers.linear(n), layers.relu())]
    model = layers.chain(meeting=meeting, join=_join(), top=layers.chain(*top, layers.linear(1)))
    ids = integers(1, rows, batch, tables) + rows * np.arange(tables, dtype=np.int32)
    target = integers(2, 2, batch, 1).astype(np.float32)
    return of_model(model, layers.sigmoid_cross_entropy(), (normal(3, batch, 13), ids), target)


def _join() -> Layer:
    """((batch, n), (batch, tables, n)) as (batch, (1 + tables) n)."""

    def forward(params, x, key=None):
        numbers, looked_up = x
        return jnp.concatenate([numbers, looked_up.reshape(len(looked_up), -1)], axis=1), looked_up.shape

    def backward(shape, dy):
        n = dy.shape[1] - shape[1] * shape[2]
        return (dy[:, :n], dy[:, n:].reshape(shape)), ()

    return Layer(lambda key, x: (), forward, backward)


def _recurrent(cell: str, size: str, *, suffix: str = "", **options: Any) -> Workload:
    sizes = dict(zip(("time", "batch", "width"), SIZES[size], strict=True))
    return Workload(
        f"{cell}-{size}{suffix}",
        recurrent,
        {"cell": cell, **sizes, **options},
        {"time": 4, "batch": 3, "width": 2},
        ("recurrent", "recurrent_torch"),
        trade=bool(options),
    )


WORKLOADS = (
    *(_recurrent(cell, size) for cell in CELLS for size in SIZES),
    _recurrent("lstm", "large", suffix="-recompute", residuals="recompute"),
    Workload(
        "lstm-language-model",
        language_model,
        {"vocabulary": 4096, "width": 128, "depth": 2, "time": 64, "batch": 16},
        {"vocabulary": 7, "width": 3, "depth": 2, "time": 4, "batch": 2},
        ("lstm_language_model", "lstm_language_model_torch"),
    ),
    Workload(
        "dlrm",
        recommender,
        {"tables": 26, "rows": 10_000, "width": 16, "hidden": (256, 128), "batch": 256},
        {"tables": 3, "rows": 5, "width": 2, "hidden": (4, 3), "batch": 6},
        ("dlrm", "dlrm_torch"),
    ),
)
