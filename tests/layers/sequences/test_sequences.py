"""What hands sequences on: bidirectional, stacked, each_step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from sequence_models import KEY, LENGTHS, STATE, X, assert_gradients, drawn, state_of

import handgrad as hg
from handgrad.layers import BidirectionalParams, Sequences, bidirectional, each_step, gru, lstm, rnn, stacked


def test_bidirectional_is_two_layers():
    one, other = lstm(5, returns="both"), lstm(3, reverse=True, returns="both")
    model = bidirectional(one, other)
    given = Sequences(X, LENGTHS)

    @jax.jit
    def run(params):
        (H, last), residuals = model.forward(params, given)
        dx, dparams = model.backward(residuals, (H, last))
        (first, first_last), kept = one.forward(params.forwards, given)
        (second, second_last), kept_other = other.forward(params.backwards, given)
        dx_one, dparams_one = one.backward(kept, (first, first_last))
        dx_other, dparams_other = other.backward(kept_other, (second, second_last))
        apart = jnp.concatenate([first.X, second.X], axis=-1), (first_last, second_last), dx_one.X + dx_other.X
        of_both = hg.materialize(BidirectionalParams(dparams_one, dparams_other))
        return (H.X, last, dx.X, hg.materialize(dparams)), (*apart, of_both)

    assert_same(*run(drawn(model, given)))


def test_gradients_of_bidirectional_and_stacked():
    """In a chain, from lengths and states; in a stack each layer gets its own state."""
    states = (STATE[:, :3], STATE[:, 2:]), STATE[:, :2]

    def chain(returns):
        return hg.chain(bidirectional(lstm(3, returns=returns), gru(2, reverse=True, returns=returns)), hg.linear(2))

    stack = stacked(rnn(5), lstm(5), rnn(5, returns="last"))
    assert_gradients(
        (chain("last"), Sequences(X, LENGTHS, states), np.ones((3, 2))),
        (chain("sequence"), X, np.ones((3, 4, 2))),
        (stack, Sequences(X, LENGTHS, (state_of("rnn"), state_of("lstm", 0.5), None)), np.ones((3, 5))),
    )


def test_stacked_is_a_chain():
    parts = lstm(5), hg.tanh(), gru(3, returns="last")
    models = stacked(*parts), hg.chain(*parts)

    @jax.jit
    def both(params):
        gradients = [hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1)) for model in models]
        return [
            (model.forward(params, X)[0], gradient(params, X, np.ones((3, 3))))
            for model, gradient in zip(models, gradients, strict=True)
        ]

    assert_same(*both(drawn(models[1], X)))
    linears = [hg.linear(3)] * 2
    assert_same(stacked(*linears).init(KEY, X), hg.chain(*linears).init(KEY, X), rtol=0)


def test_a_long_sequence_in_pieces():
    """Each piece starts from the states that the one before ended in."""
    model = stacked(lstm(5, returns="both"), gru(4, returns="both"))

    @jax.jit
    def run(params):
        (H, states), _ = model.forward(params, X)
        (first, between), _ = model.forward(params, Sequences(X[:, :1]))
        (second, end), residuals = model.forward(params, Sequences(X[:, 1:], None, between))
        dx, _ = model.backward(residuals, (second, end))
        return (jnp.concatenate([first.X, second.X], axis=1), end), (H, states), dx.state, between

    pieces, whole, dstate, between = run(drawn(model, X))
    assert_same(pieces, whole)
    assert jax.tree.structure(dstate) == jax.tree.structure(between)


def test_each_step():
    """Past an embedding and a head go lengths and state; on an array each_step is the layer itself."""
    model = hg.chain(each_step(hg.linear(3)), lstm(5), each_step(hg.linear(2)))
    plain = hg.chain(hg.linear(3), lstm(5), hg.linear(2))

    def reference(params, X, state):
        Z, _ = hg.linear(3).forward(params[0], X)
        H, _ = lstm(5).forward(params[1], Sequences(Z, LENGTHS, state))
        return jnp.sum(hg.linear(2).forward(params[2], H.X)[0])

    @jax.jit
    def run(params, state):
        y, residuals = model.forward(params, Sequences(X, LENGTHS, state))
        assert isinstance(y, Sequences)
        dx, dparams = model.backward(residuals, Sequences(jnp.ones_like(y.X)))
        expected = jax.grad(reference, (0, 1, 2))(params, X, state)
        arrays = model.forward(params, X)[0], plain.forward(params, X)[0]
        return ((hg.materialize(dparams), dx.X, dx.state), arrays[0]), (expected, arrays[1])

    assert_same(*run(drawn(model, X), state_of("lstm")))


def test_bad_combinations():
    with pytest.raises(hg.InputError, match=r"^stacked: expected at least one layer, got none$"):
        stacked()
    for combine in (stacked, each_step, lambda layer: bidirectional(layer, lstm(3))):
        with pytest.raises(hg.InputError, match=r": expected a Layer, as `relu\(\)` makes one, got function$"):
            combine(lstm)
    pair = bidirectional(rnn(5), rnn(5, returns="last"))
    with pytest.raises(
        hg.InputError, match=r"^bidirectional: both layers must return alike, got float64 \(3, 4, 5\) and"
    ):
        pair.forward(drawn(pair, X), X)
    params = drawn(stacked(rnn(5), rnn(5)), X)
    with pytest.raises(
        hg.InputError, match=r'^stacked: layers must all return "both" or none of them, got some of each$'
    ):
        stacked(rnn(5, returns="both"), rnn(5)).forward(params, X)
    with pytest.raises(hg.InputError, match=r"^stacked: x.state must be a tuple of 2, one state for each layer, got "):
        stacked(rnn(5), rnn(5)).forward(params, Sequences(X, None, STATE))
    with pytest.raises(hg.InputError, match=r"^stacked: params must be a tuple of 2, one for each layer, got "):
        stacked(rnn(5), rnn(5)).forward(params[:1], X)
    with pytest.raises(hg.InputError, match=r"^in layer 1: rnn: params must be RnnParams, got "):
        stacked(rnn(5), rnn(5)).forward((params[0], ()), X)
    both = bidirectional(rnn(5), rnn(5))
    with pytest.raises(hg.InputError, match=r"^in layer backwards: rnn_forward: H0 must have shape \(3, 5\)"):
        both.forward(drawn(both, X), Sequences(X, None, (STATE, STATE[:1])))


def test_layers_say_what_is_inside():
    """`parts`, by which the checker finds the wrong one."""
    model = stacked(bidirectional(rnn(2), rnn(3, reverse=True)), gru(4))

    def look(params):
        found = [(part.name, part.x.shape) for part in model.parts(params, X)]
        assert found == [("0.forwards", (3, 4, 2)), ("0.backwards", (3, 4, 2)), ("1", (3, 4, 5))]

    jax.eval_shape(look, drawn(model, X))
