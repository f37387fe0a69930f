"""lstm: long short-term memory as a layer."""

from typing import Literal, NamedTuple

from jaxtyping import Array

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.sequences._recurrent import RECURRENT, WEIGHTS, ZEROS, Initializer, Returns, recurrent

__all__ = ["LstmParams", "lstm"]


class LstmParams(NamedTuple):
    """Parameters of `lstm`, the gates i, f, g, o side by side.

    PyTorch's are weight_ih_l0 = Wᵀ, weight_hh_l0 = Uᵀ, bias_ih_l0 + bias_hh_l0 = b.

    Attributes:
      W: (n_in, 4 n) input weights.
      U: (n, 4 n) recurrent weights.
      b: (4 n,) bias.
    """

    W: Array
    U: Array
    b: Array


def lstm(
    n: int,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: Literal["save", "recompute"] = "save",
    returns: Returns = "sequence",
    init_W: Initializer = WEIGHTS,
    init_U: Initializer = RECURRENT,
    init_b: Initializer = ZEROS,
) -> Layer:
    """Long short-term memory, with parameters LstmParams(W, U, b); its state is the pair (H, C).

    Args:
      n: features of the state, and of the output.
      reverse, truncate, residuals: as lstm_forward's.
      returns, init_W, init_U, init_b: as in `rnn`.
    Derivation: docs/derivations/sequences/lstm.md
    """
    rule = rules.lstm.with_options(reverse=reverse, truncate=truncate, residuals=residuals)
    return recurrent(rule, LstmParams, 4, n, (init_W, init_U, init_b), returns, pair=True)
