"""rnn, lstm and gru as layers: what the three share, each with its own parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, drawn
from sequence_models import KEY, LENGTHS, STATE, X, assert_gradients, state_of

import handgrad as hg
from handgrad.layers import GruParams, LstmParams, RnnParams, Sequences, gru, lstm, rnn

MAKERS = {"rnn": rnn, "lstm": lstm, "gru": gru}
KINDS = {"rnn": (RnnParams, 1), "lstm": (LstmParams, 4), "gru": (GruParams, 3)}  # and the number of their gates
every_layer = pytest.mark.parametrize("kind", MAKERS)


@pytest.mark.parametrize(("kind", "dtype"), [("rnn", "bfloat16"), ("lstm", "float32"), ("gru", "float64")])
def test_init(kind, dtype):
    params = MAKERS[kind](5).init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
    of, gates = KINDS[kind]
    assert type(params) is of
    assert [p.shape for p in params] == [(2, gates * 5), (5, gates * 5), (gates * 5,), (5,)][: len(params)]
    assert all(p.dtype == dtype for p in params)
    assert not any(np.asarray(p).any() for p in params[2:])
    rounding = float(jnp.finfo(dtype).eps)
    for U in np.split(np.asarray(params.U, np.float64), gates, axis=1):
        np.testing.assert_allclose(U @ U.T, np.eye(5), atol=8 * rounding)


@every_layer
def test_initializers(kind):
    ranks = dict.fromkeys(("init_W", "init_U", "init_b"), lambda key, shape, dtype: np.full(shape, len(shape), dtype))
    params = MAKERS[kind](5, **ranks).init(KEY, X)
    assert all((np.asarray(p) == p.ndim).all() for p in params)


@every_layer
def test_gradients_with_and_without_state_and_lengths(kind):
    """dx has X's cotangent, none for the lengths, and the state's in its place."""
    make, x = MAKERS[kind], Sequences(X, LENGTHS, state_of(kind))
    chain = hg.chain(hg.linear(3), make(4), make(5, reverse=True, returns="last"), hg.linear(2))
    assert_gradients((chain, X, np.ones((3, 2))), (make(5, returns="last"), x, np.ones((3, 5))))
    model = make(5, truncate=2)

    def cotangent(params):
        y, residuals = model.forward(params, x)
        assert isinstance(y, Sequences)
        assert y.lengths is LENGTHS
        assert y.state is None
        return model.backward(residuals, Sequences(y.X))[0]

    dx = jax.eval_shape(cotangent, drawn(model, x))
    assert jax.tree.structure(dx) == jax.tree.structure(Sequences(X, None, state_of(kind)))


@every_layer
def test_without_a_state_it_starts_from_zeros(kind):
    model, last_alone = MAKERS[kind](5, returns="both"), MAKERS[kind](5, returns="last")

    @jax.jit
    def run(params):
        outcomes = []
        for x in (X, Sequences(X, None, state_of(kind, 0.0))):
            (y, last), residuals = model.forward(params, x)
            dx, _ = model.backward(residuals, (y, last))
            outcomes.append((*(getattr(a, "X", a) for a in (y, dx)), last))
        return *outcomes, last_alone.forward(params, X)[0]

    plain, from_zeros, alone = run(drawn(model, X))
    assert_same(from_zeros, plain)
    assert_same(alone, jax.tree.leaves(plain[2])[0])


def test_repeat():
    model = hg.chain(hg.linear(5), hg.repeat(hg.residual(lstm(5)), 2))
    assert_gradients((model, X, np.ones((3, 4, 5))))


@every_layer
def test_refusals(kind):
    make = MAKERS[kind]
    model, both, wrong = make(5), make(5, returns="both"), MAKERS["gru" if kind == "rnn" else "rnn"](5)
    params, narrow = drawn(model, X), drawn(make(4), X)
    _, residuals = both.forward(params, X)
    states = (STATE, STATE, STATE) if kind == "lstm" else STATE[:2]
    sentence = ": x.state must be a pair.*" if kind == "lstm" else r"_forward: H0 must have shape \(3, 5\).*"
    rows = {
        ": n must be a positive integer, got 0": lambda: make(0),
        ": returns must be 'sequence', 'last' or 'both', got 'all'": lambda: make(5, returns="all"),
        r": x must have shape \(batch, time, n_in\), got float64 \(4, 2\)": lambda: model.init(KEY, X[0]),
        sentence: lambda: model.forward(params, Sequences(X, None, states)),
        ": dy must be a pair, of the sequence and of the last state, got .*": lambda: both.backward(residuals, X),
        r": params.U must have shape \(5, \d+\) \(n, its gates side by side\).*": lambda: model.forward(narrow, X),
    }
    assert_refused({kind + sentence: call for sentence, call in rows.items()})
    for another in (drawn(wrong, X), (), tuple(params), None):
        sentence = f"{kind}: params must be {KINDS[kind][0].__name__}, got .*"
        assert_refused({sentence: lambda another=another: model.forward(another, X)})
