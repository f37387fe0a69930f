"""rnn: the vanilla recurrent layer, from X or Sequences to what every step, or the last one, has seen."""

from typing import Literal, NamedTuple

from jaxtyping import Array

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.sequences._recurrent import RECURRENT, WEIGHTS, ZEROS, Initializer, Returns, recurrent

__all__ = ["RnnParams", "rnn"]


class RnnParams(NamedTuple):
    """Parameters of `rnn`. PyTorch's are weight_ih_l0 = Wᵀ, weight_hh_l0 = Uᵀ, bias_ih_l0 + bias_hh_l0 = b.

    Attributes:
      W: (n_in, n) input weights.
      U: (n, n) recurrent weights.
      b: (n,) bias.
    """

    W: Array
    U: Array
    b: Array


def rnn(
    n: int,
    activation: Literal["tanh", "relu"] = "tanh",
    *,
    reverse: bool = False,
    truncate: int | None = None,
    returns: Returns = "sequence",
    init_W: Initializer = WEIGHTS,
    init_U: Initializer = RECURRENT,
    init_b: Initializer = ZEROS,
) -> Layer:
    """h_t = φ(x_t W + h_{t−1} U + b), with parameters RnnParams(W, U, b).

    Args:
      n: features of the state, and of the output.
      activation, reverse, truncate: as rnn_forward's.
      returns: "sequence" for H (batch, time, n): an array for an array, Sequences(H, lengths) for Sequences;
        "last" for the last H (batch, n); "both" for (the sequence, the last state).
      init_W, init_U, init_b: initializers, (key, shape, dtype) -> array; init_U for each gate's (n, n). Parameters get
        the dtype of `init`'s x.
    Derivation: docs/derivations/sequences/rnn.md
    """
    rule = rules.rnn.with_options(activation=activation, reverse=reverse, truncate=truncate)
    return recurrent(rule, RnnParams, 1, n, (init_W, init_U, init_b), returns)
