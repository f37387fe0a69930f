"""What hands sequences on: bidirectional, stacked, each_step."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, drawn
from sequence_models import KEY, LENGTHS, STATE, X, assert_gradients, state_of

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
    both = jax.jit(lambda params: [make(*parts).forward(params, X)[0] for make in (stacked, hg.chain)])
    assert_same(*both(drawn(stacked(*parts), X)))
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
        found = hg.materialize(dparams), dx.X, dx.state, model.forward(params, X)[0]
        return found, (*jax.grad(reference, (0, 1, 2))(params, X, state), plain.forward(params, X)[0])

    assert_same(*run(drawn(model, X), state_of("lstm")))


def test_refusals():
    two, both = stacked(rnn(5), rnn(5)), bidirectional(rnn(5), rnn(5))
    mixed, unlike = stacked(rnn(5, returns="both"), rnn(5)), bidirectional(rnn(5), rnn(5, returns="last"))
    params, of_both = drawn(two, X), drawn(both, X)
    alike, states = r"both layers must return alike, got float64 \(3, 4, 5\) and.*", (STATE, STATE[:1])
    H0 = r"H0 must have shape \(3, 5\).*"
    rows = {
        "stacked: expected at least one layer, got none": lambda: stacked(),
        'stacked: layers must all return "both" or none of them, got some of each': lambda: mixed.forward(params, X),
        "stacked: x.state must be a tuple of 2, one state for each layer, got .*": (
            lambda: two.forward(params, Sequences(X, None, STATE))
        ),
        "stacked: params must be a tuple of 2, one for each layer, got .*": lambda: two.forward(params[:1], X),
        "in layer 1: rnn: params must be RnnParams, got .*": lambda: two.forward((params[0], ()), X),
        f"bidirectional: {alike}": lambda: unlike.forward(of_both, X),
        f"in layer backwards: rnn_forward: {H0}": lambda: both.forward(of_both, Sequences(X, None, states)),
    }
    assert_refused(rows)
    for combine in (stacked, each_step, lambda layer: bidirectional(layer, lstm(3))):
        sentence = r".*: expected a Layer, as `relu\(\)` makes one, got function"
        assert_refused({sentence: lambda combine=combine: combine(lstm)})


def test_layers_say_what_is_inside():
    """`parts`, by which the checker finds the wrong one."""
    model = stacked(bidirectional(rnn(2), rnn(3, reverse=True)), gru(4))

    def look(params):
        found = [(part.name, part.x.shape) for part in model.parts(params, X)]
        assert found == [("0.forwards", (3, 4, 2)), ("0.backwards", (3, 4, 2)), ("1", (3, 4, 5))]

    jax.eval_shape(look, drawn(model, X))
