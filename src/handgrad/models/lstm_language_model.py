"""lstm_language_model: the next token from all tokens before it."""

from dataclasses import dataclass
from typing import Literal

from handgrad.checks import check_count
from handgrad.layers import Layer, chain, each_step, embedding, lstm, stacked
from handgrad.models.head import Head, made_head
from handgrad.models.state_table import TRANSPOSED, StateTable, Weight


@dataclass(frozen=True)
class LstmLanguageModelConfig:
    """Sizes of an `lstm_language_model`.

    Attributes:
      vocabulary: how many ids there are.
      width: features of the embedding, and of each layer's state.
      layers: how many LSTM layers.
      truncate: truncated BPTT stops the gradient every so many steps; None never.
      residuals: "save" keeps the gates of every step, "recompute" recomputes them (rematerialization).
      head: "logits", or "projection" for a model that ends in a Projection and leaves its last product to the loss,
        `linear_cross_entropy` or `linear_log_probability`. Parameters are the same.
    """

    vocabulary: int
    width: int = 128
    layers: int = 2
    truncate: int | None = None
    residuals: Literal["save", "recompute"] = "save"
    head: Head = "logits"


def lstm_language_model(config: LstmLanguageModelConfig) -> Layer:
    """Embedding, stacked LSTM layers, and a linear head: ids (batch, time) to logits (batch, time, vocabulary), or
    a Projection.

    The logits at t know the ids up to t: they are for the id at t + 1. Params are a dict of embedding, lstm and head.
    For lengths, or a state for each layer, x is Sequences(ids, lengths, state), and so is the output.

    Raises:
      InputError: a size that is not a positive integer; another head; at trace time, whatever the layers raise.
    """
    check_count("lstm_language_model", "layers", config.layers)
    layers = [lstm(config.width, truncate=config.truncate, residuals=config.residuals) for _ in range(config.layers)]
    return chain(
        embedding=each_step(embedding(config.vocabulary, config.width)),
        lstm=stacked(*layers),
        head=each_step(made_head("lstm_language_model", config.head, config.vocabulary, bias=True)),
    )


def lstm_language_model_state(config: LstmLanguageModelConfig) -> StateTable:
    """Where a `lstm_language_model`'s parameters are in a state with the names of PyTorch's example of one.

    docs/models.md shows the table.
    """
    table = {
        "embedding.table": Weight("encoder.weight"),
        "head.W": Weight("decoder.weight", TRANSPOSED, tied="encoder.weight"),
        "head.b": Weight("decoder.bias"),
    }
    for i in range(config.layers):
        table |= {
            f"lstm.{i}.W": Weight(f"rnn.weight_ih_l{i}", TRANSPOSED),
            f"lstm.{i}.U": Weight(f"rnn.weight_hh_l{i}", TRANSPOSED),
            f"lstm.{i}.b": Weight(f"rnn.bias_ih_l{i}", added=f"rnn.bias_hh_l{i}"),
        }
    return StateTable(table)
