"""The layer around each of the recurrent rules rnn, lstm and gru."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

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
from handgrad.layers.layer import Layer, made_by
from handgrad.layers.sequences.sequences import Sequences
from handgrad.rule import Rule

Initializer = jax.nn.initializers.Initializer
Returns = Literal["sequence", "last", "both"]

WEIGHTS = jax.nn.initializers.lecun_normal()
RECURRENT = jax.nn.initializers.orthogonal()
ZEROS = jax.nn.initializers.zeros


class RecurrentResiduals(NamedTuple):
    """x: the layer's input, for its form; kept: the rule's residuals. References, no copies."""

    x: Array | Sequences
    kept: PyTree


def recurrent(
    rule: Rule[..., PyTree],
    Params: type[PyTree],
    gates: int,
    n: int,
    inits: tuple[Initializer, Initializer, Initializer],
    returns: Returns,
    pair: bool = False,
) -> Layer:
    """The layer around a rule of (X, *params, *states, lengths).

    Args:
      Params: a NamedTuple of W (n_in, gates n), U (n, gates n), b (gates n,), and c (n,) where there is one.
      inits: of W, of each gate's part of U, and of the biases.
      returns: "sequence", "last" (the last H), or "both" (the sequence and the last state).
      pair: whether the state is a pair (H, C).
    """
    name, count = rule.__name__, len(Params._fields)
    check_count(name, "n", n)
    check_choice(name, "returns", returns, ("sequence", "last", "both"))
    init_W, init_U, init_b = inits

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct | Sequences) -> PyTree:
        X = as_sequences(x).X
        check_array(name, "x", X)
        if len(X.shape) != 3:
            raise InputError(f"{name}: x must have shape (batch, time, n_in), got {describe(X)}")
        dtype = jax.dtypes.canonicalize_dtype(X.dtype)
        key_W, key_b, key_c, *keys_U = jax.random.split(key, 3 + gates)
        W = init_W(key_W, (X.shape[-1], gates * n), dtype)
        # An orthogonal matrix comes from a decomposition, which reduced dtypes don't have.
        parts = [init_U(k, (n, n), jnp.promote_types(dtype, jnp.float32)) for k in keys_U]
        biases = init_b(key_b, (gates * n,), dtype), init_b(key_c, (n,), dtype)
        return Params(W, jnp.concatenate(parts, axis=1).astype(dtype), *biases[: count - 2])

    def forward(
        params: PyTree, x: Array | Sequences, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, RecurrentResiduals]:
        check_params(name, params, Params)
        check_shape(name, "params.U", params.U, (n, gates * n), "(n, its gates side by side)")
        X, lengths, state = as_sequences(x)
        check_array(name, "x", X, min_ndim=2)
        if pair and not (state is None or (type(state) is tuple and len(state) == 2)):
            raise InputError(f"{name}: x.state must be a pair (H0, C0), got {describe(state)}")
        if state is None:
            zeros = jnp.zeros((X.shape[0], n), X.dtype)
            state = (zeros, zeros) if pair else zeros
        states = state if pair else (state,)
        (H, last), kept = rule.forward(X, *params, *states, lengths)
        sequence = Sequences(H, lengths) if isinstance(x, Sequences) else H
        y = {"sequence": sequence, "last": last[0] if pair else last, "both": (sequence, last)}[returns]
        return y, RecurrentResiduals(x, kept)

    def backward(residuals: RecurrentResiduals, dy: PyTree) -> tuple[Array | Sequences, PyTree]:
        x, kept = check_residuals(name, residuals, RecurrentResiduals)
        dH = jnp.zeros_like(kept.H)
        dlast: PyTree = jnp.zeros_like(kept.H0, dtype=kept.H.dtype)
        if returns == "both":
            if not (type(dy) is tuple and len(dy) == 2):
                pair_of = "a pair, of the sequence and of the last state"
                raise InputError(f"{name}: dy must be {pair_of}, got {describe(dy)}")
            dH, dlast = as_sequences(dy[0]).X, dy[1]
        elif returns == "last":
            dlast = (dy, dlast) if pair else dy
        else:
            dH, dlast = as_sequences(dy).X, (dlast, dlast) if pair else dlast
        dX, *dparams_and_states, _ = rule.backward(kept, (dH, dlast))  # the last is None, of the lengths
        dparams, dstates = Params(*dparams_and_states[:count]), tuple(dparams_and_states[count:])
        if not isinstance(x, Sequences):
            return dX, dparams
        dstate = dstates if pair else dstates[0]
        return Sequences(dX, None, None if x.state is None else dstate), dparams

    return made_by(name, Layer(init, forward, backward))


def as_sequences(x: Array | jax.ShapeDtypeStruct | Sequences) -> Sequences:
    """An X alone is all of time, from a state of zeros."""
    return x if isinstance(x, Sequences) else Sequences(x)
