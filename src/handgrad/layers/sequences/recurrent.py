"""rnn, lstm and gru: one recurrent layer each, from X or Sequences to what every step, or the last one, has seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_count,
    check_params,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.layers.layer import Layer
from handgrad.layers.sequences.sequences import Sequences
from handgrad.rules.rule import Rule

__all__ = [
    "GruParams",
    "LstmParams",
    "RnnParams",
    "gru",
    "lstm",
    "rnn",
]

Array = jax.Array
Initializer = jax.nn.initializers.Initializer

WEIGHTS = jax.nn.initializers.lecun_normal()
RECURRENT = jax.nn.initializers.orthogonal()
ZEROS = jax.nn.initializers.zeros


class RnnParams(NamedTuple):
    """Parameters of `rnn`. PyTorch's are weight_ih_l0 = Wᵀ, weight_hh_l0 = Uᵀ, bias_ih_l0 + bias_hh_l0 = b.

    Attributes:
      W: (n_in, n) input weights.
      U: (n, n) recurrent weights.
      b: (n,) bias.
    """

    W: Any
    U: Any
    b: Any


class LstmParams(NamedTuple):
    """Parameters of `lstm`, the gates i, f, g, o side by side.

    PyTorch's are weight_ih_l0 = Wᵀ, weight_hh_l0 = Uᵀ, bias_ih_l0 + bias_hh_l0 = b.

    Attributes:
      W: (n_in, 4 n) input weights.
      U: (n, 4 n) recurrent weights.
      b: (4 n,) bias.
    """

    W: Any
    U: Any
    b: Any


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

    W: Any
    U: Any
    b: Any
    c: Any


class RecurrentResiduals(NamedTuple):
    """x: the layer's input, for its form; kept: the rule's residuals. References, no copies."""

    x: Any
    kept: Any


def rnn(
    n: int,
    activation: str = "tanh",
    *,
    reverse: bool = False,
    truncate: int | None = None,
    returns: str = "sequence",
    init_W: Initializer = WEIGHTS,
    init_U: Initializer = RECURRENT,
    init_b: Initializer = ZEROS,
) -> Layer:
    """h_t = φ(x_t W + h_{t−1} U + b), with parameters RnnParams(W, U, b).

    Args:
      n: features of the state, and of the output.
      activation: "tanh" or "relu".
      reverse: from each example's last step to its first.
      truncate: k; cotangents are cut every k steps, as rnn_forward says exactly.
      returns: "sequence" for H (batch, time, n): an array for an array, Sequences(H, lengths) for Sequences;
        "last" for the last H (batch, n); "both" for (the sequence, the last state).
      init_W, init_U, init_b: initializers, (key, shape, dtype) -> array; init_U for each gate's (n, n). Parameters get
        the dtype of `init`'s x.
    Raises:
      InputError: a wrong option; at trace time, params of another layer, and as rnn_forward and rnn_backward.
    Derivation: docs/derivations/sequences/rnn.md
    """
    options = {"activation": activation, "reverse": reverse, "truncate": truncate}
    inits = init_W, init_U, init_b
    return _recurrent("rnn", RnnParams, n, inits, returns, rules.rnn, options)


def lstm(
    n: int,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: str = "save",
    returns: str = "sequence",
    init_W: Initializer = WEIGHTS,
    init_U: Initializer = RECURRENT,
    init_b: Initializer = ZEROS,
) -> Layer:
    """Long short-term memory, with parameters LstmParams(W, U, b); its state is the pair (H, C).

    Args:
      n: features of the state, and of the output.
      residuals: "save" keeps the gates, "recompute" computes them again.
      reverse, truncate, returns, init_W, init_U, init_b: as in `rnn`.
    Raises:
      InputError: a wrong option; at trace time, params of another layer, and as lstm_forward and lstm_backward.
    Derivation: docs/derivations/sequences/lstm.md
    """
    options = {"reverse": reverse, "truncate": truncate, "residuals": residuals}
    inits = init_W, init_U, init_b
    return _recurrent("lstm", LstmParams, n, inits, returns, rules.lstm, options)


def gru(
    n: int,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    residuals: str = "save",
    returns: str = "sequence",
    init_W: Initializer = WEIGHTS,
    init_U: Initializer = RECURRENT,
    init_b: Initializer = ZEROS,
) -> Layer:
    """The gated recurrent unit that resets after the product, with parameters GruParams(W, U, b, c).

    Args:
      n: features of the state, and of the output.
      residuals: "save" keeps the gates, "recompute" computes them again.
      reverse, truncate, returns, init_W, init_U, init_b: as in `rnn`; init_b for c too.
    Raises:
      InputError: a wrong option; at trace time, params of another layer, and as gru_forward and gru_backward.
    Derivation: docs/derivations/sequences/gru.md
    """
    options = {"reverse": reverse, "truncate": truncate, "residuals": residuals}
    inits = init_W, init_U, init_b
    return _recurrent("gru", GruParams, n, inits, returns, rules.gru, options)


def _recurrent(
    name: str,
    kind: type[Any],
    n: int,
    inits: tuple[Initializer, Initializer, Initializer],
    returns: str,
    rule: Rule[..., Any],
    options: dict[str, Any],
) -> Layer:
    """The layer around one of the three rules."""
    check_count(name, "n", n)
    check_choice(name, "returns", returns, ("sequence", "last", "both"))
    gates = {RnnParams: 1, LstmParams: 4, GruParams: 3}[kind]
    rule = rule.with_options(**options)
    init_W, init_U, init_b = inits

    def init(key: Array, x: Any) -> Any:
        X = _as_sequences(x).X
        check_array(name, "x", X)
        if len(X.shape) != 3:
            raise InputError(f"{name}: x must have shape (batch, time, n_in), got {describe(X)}")
        dtype = jax.dtypes.canonicalize_dtype(X.dtype)
        key_W, key_b, key_c, *keys_U = jax.random.split(key, 3 + gates)
        W = init_W(key_W, (X.shape[-1], gates * n), dtype)
        # An orthogonal matrix is made by a decomposition, which reduced dtypes don't have.
        parts = [init_U(k, (n, n), jnp.promote_types(dtype, jnp.float32)) for k in keys_U]
        biases = [init_b(key_b, (gates * n,), dtype)] + [init_b(key_c, (n,), dtype)] * (kind is GruParams)
        return kind(W, jnp.concatenate(parts, axis=1).astype(dtype), *biases)

    def forward(params: Any, x: Any, key: Array | None = None) -> tuple[Any, RecurrentResiduals]:
        check_params(name, params, kind)
        check_shape(name, "params.U", params.U, (n, gates * n), "(n, its gates side by side)")
        X, lengths, state = _as_sequences(x)
        check_array(name, "x", X, min_ndim=2)
        zeros = jnp.zeros((X.shape[0], n), X.dtype)
        if kind is LstmParams:
            if not (state is None or (type(state) is tuple and len(state) == 2)):
                raise InputError(f"{name}: x.state must be a pair (H0, C0), got {describe(state)}")
            states = (zeros, zeros) if state is None else state
        else:
            states = (zeros if state is None else state,)
        (H, last), kept = rule.forward(X, *params, *states, lengths)
        sequence = Sequences(H, lengths) if isinstance(x, Sequences) else H
        y = {"sequence": sequence, "last": last[0] if kind is LstmParams else last, "both": (sequence, last)}[returns]
        return y, RecurrentResiduals(x, kept)

    def backward(residuals: Any, dy: Any) -> tuple[Any, Any]:
        x, kept = check_residuals(name, residuals, RecurrentResiduals)
        dH, dlast = jnp.zeros_like(kept.H), jnp.zeros_like(kept.H0, dtype=kept.H.dtype)
        if kind is LstmParams:
            dlast = (dlast, dlast)
        if returns == "both":
            if not (type(dy) is tuple and len(dy) == 2):
                raise InputError(
                    f"{name}: dy must be a pair, of the sequence and of the last state, got {describe(dy)}"
                )
            dH, dlast = _as_sequences(dy[0]).X, dy[1]
        elif returns == "last":
            dlast = (dy, dlast[1]) if kind is LstmParams else dy
        else:
            dH = _as_sequences(dy).X
        dX, *others = rule.backward(kept, (dH, dlast))
        *dparams_and_states, _ = others  # the lengths' is None
        dparams, dstates = kind(*dparams_and_states[: len(kind._fields)]), dparams_and_states[len(kind._fields) :]
        if not isinstance(x, Sequences):
            return dX, dparams
        dstate = tuple(dstates) if kind is LstmParams else dstates[0]
        return Sequences(dX, None, None if x.state is None else dstate), dparams

    return Layer(init, forward, backward)


def _as_sequences(x: Any) -> Sequences:
    return x if isinstance(x, Sequences) else Sequences(x)
