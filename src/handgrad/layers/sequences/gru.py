"""gru: the gated recurrent unit as a layer."""

from typing import Literal, NamedTuple

from jaxtyping import Array

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.sequences._recurrent import RECURRENT, WEIGHTS, ZEROS, Initializer, Returns, recurrent

__all__ = ["GruParams", "gru"]


class GruParams(NamedTuple):
    """Parameters of `gru`, the gates r, z, n side by side.

    PyTorch's are weight_ih_l0 = Wᵀ, weight_hh_l0 = Uᵀ. For r and z, b is bias_ih_l0 + bias_hh_l0; for n, b is
    bias_ih_l0's part and c bias_hh_l0's.

    Attributes:
      W: (n_in, 3 n) input weights.
      U: (n, 3 n) recurrent weights.
      b: (3 n,) bias.
      c: (n,) bias inside the product that is reset.
    """

    W: Array
    U: Array
    b: Array
    c: Array


def gru(
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
    """The gated recurrent unit that resets after the product, with parameters GruParams(W, U, b, c).

    Args:
      n: features of the state, and of the output.
      reverse, truncate, residuals: as gru_forward's.
      returns, init_W, init_U, init_b: as in `rnn`; init_b for c too.
    Derivation: docs/derivations/sequences/gru.md
    """
    rule = rules.gru.with_options(reverse=reverse, truncate=truncate, residuals=residuals)
    return recurrent(rule, GruParams, 3, n, (init_W, init_U, init_b), returns)
