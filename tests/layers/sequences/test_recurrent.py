"""rnn, lstm, gru and linear_recurrence as layers, and what hands sequences on: bidirectional, stacked, each_step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.layers import (
    BidirectionalParams,
    GruParams,
    LstmParams,
    RnnParams,
    Sequences,
    bidirectional,
    each_step,
    gru,
    linear_recurrence,
    lstm,
    rnn,
    stacked,
)

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 4, 2)))
LENGTHS = np.array([4, 1, 3])
STATE = jnp.asarray(RNG.standard_normal((3, 5)))
MAKERS = {"rnn": rnn, "lstm": lstm, "gru": gru}
PARAMS = {"rnn": RnnParams, "lstm": LstmParams, "gru": GruParams}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
every_layer = pytest.mark.parametrize("kind", MAKERS)


def state_of(kind, scale=1.0):
    return (scale * STATE, -scale * STATE) if kind == "lstm" else scale * STATE


def drawn(model, x):
    """Parameters of the model, none of them zero."""
    rng = np.random.default_rng(1)
    like = jax.eval_shape(lambda key: model.init(key, x), KEY)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape).astype(p.dtype)), like)


def assert_gradients(model, x, loss, target):
    """value_and_grad's gradient of params and of x is jax.grad's of the objective."""
    lengths = getattr(x, "lengths", None)

    def of(make, params, x):
        return make(params, x._replace(lengths=lengths) if isinstance(x, Sequences) else x, target)

    @jax.jit
    def both(params, x):
        by_hand = of(hg.value_and_grad(model, loss, argnums=(0, 1)), params, x)
        objective = functools.partial(of, hg.objective(model, loss))
        return by_hand, jax.value_and_grad(objective, argnums=(0, 1))(params, x)

    assert_same(*both(drawn(model, x), x._replace(lengths=None) if isinstance(x, Sequences) else x))


@pytest.mark.parametrize(("kind", "dtype"), [("rnn", "bfloat16"), ("lstm", "float32"), ("gru", "float64")])
def test_init(kind, dtype):
    params = MAKERS[kind](5).init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
    gates = GATES[kind]
    assert type(params) is PARAMS[kind]
    assert [p.shape for p in params] == [(2, gates * 5), (5, gates * 5), (gates * 5,), (5,)][: len(params)]
    assert all(p.dtype == dtype for p in params)
    assert not any(np.asarray(p).any() for p in params[2:])
    rounding = float(jnp.finfo(dtype).eps)
    for U in np.split(np.asarray(params.U, np.float64), gates, axis=1):
        np.testing.assert_allclose(U @ U.T, np.eye(5), atol=8 * rounding)


@every_layer
def test_initializers(kind):
    def initializer(key, shape, dtype):
        return jnp.asarray(np.full(shape, len(shape), dtype))

    params = MAKERS[kind](5, init_W=initializer, init_U=initializer, init_b=initializer).init(KEY, X)
    assert all((np.asarray(p) == p.ndim).all() for p in params)


@every_layer
def test_in_a_chain(kind):
    make = MAKERS[kind]
    model = hg.chain(hg.linear(3), make(4), make(5, reverse=True, returns="last"), hg.linear(2))
    assert_gradients(model, X, hg.squared_error(), np.ones((3, 2)))


@every_layer
def test_from_a_state_with_lengths(kind):
    """dx has X's cotangent, none for the lengths, and the state's in its place."""
    x = Sequences(X, LENGTHS, state_of(kind))
    assert_gradients(MAKERS[kind](5, returns="last"), x, hg.squared_error(), np.ones((3, 5)))
    model = MAKERS[kind](5, truncate=2)

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
    model = MAKERS[kind](5, returns="both")

    @jax.jit
    def run(params):
        (y, last), residuals = model.forward(params, X)
        dx, _ = model.backward(residuals, (y, last))
        (same, same_last), residuals = model.forward(params, Sequences(X, None, state_of(kind, 0.0)))
        same_dx, _ = model.backward(residuals, (same, same_last))
        return (y, last, dx), (same.X, same_last, same_dx.X)

    params = drawn(model, X)
    plain, from_zeros = run(params)
    assert_same(from_zeros, plain)
    alone, last = (MAKERS[kind](5, returns=what).forward(params, X)[0] for what in ("last", "both"))
    assert alone.tolist() == jax.tree.leaves(last[1])[0].tolist()


def test_repeat():
    model = hg.chain(hg.linear(5), hg.repeat(hg.residual(lstm(5)), 2))
    assert_gradients(model, X, hg.squared_error(), np.ones((3, 4, 5)))


def test_per_example_norms():
    """Example by example: the factors' squared norms are those of one-example gradients."""
    model, loss = gru(5, returns="last"), hg.squared_error()
    target = np.ones((3, 5))

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(model, loss)(params, X, target)
        one = lambda x, y: jax.grad(hg.objective(model, loss))(params, x[None], y[None])  # noqa: E731
        grads = jax.vmap(one)(X, target)
        return [f.sq_norms() for f in factors], [jnp.sum(g.reshape(3, -1) ** 2, axis=1) for g in grads]

    assert_same(*both(drawn(model, X)))


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


@pytest.mark.parametrize("returns", ["sequence", "last"])
def test_bidirectional_in_a_chain(returns):
    model = hg.chain(bidirectional(lstm(3, returns=returns), gru(2, reverse=True, returns=returns)), hg.linear(2))
    if returns == "last":
        H0, C0, G0 = STATE[:, :3], STATE[:, 2:], STATE[:, :2]
        assert_gradients(model, Sequences(X, LENGTHS, ((H0, C0), G0)), hg.squared_error(), np.ones((3, 2)))
    else:
        assert_gradients(model, X, hg.squared_error(), np.ones((3, 4, 2)))


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


def test_stacked_gives_each_layer_its_state():
    model = stacked(rnn(5), lstm(5), rnn(5, returns="last"))
    x = Sequences(X, LENGTHS, (state_of("rnn"), state_of("lstm", 0.5), None))
    assert_gradients(model, x, hg.squared_error(), np.ones((3, 5)))


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


@pytest.mark.parametrize("reverse", [False, True])
def test_linear_recurrence(reverse):
    model = hg.chain(hg.linear(3), linear_recurrence(reverse=reverse), hg.linear(2))
    assert_gradients(model, X, hg.squared_error(), np.ones((3, 4, 2)))
    params = jax.eval_shape(linear_recurrence().init, KEY, jax.ShapeDtypeStruct(X.shape, jnp.float32))
    assert (params.decay.shape, params.decay.dtype) == ((2,), jnp.float32)


@every_layer
def test_bad_params(kind):
    model = MAKERS[kind](5)
    wrong = next(name for name in MAKERS if name != kind)
    for params in (drawn(MAKERS[wrong](5), X), (), tuple(drawn(model, X)), None):
        with pytest.raises(hg.InputError, match=rf"^{kind}: params must be {PARAMS[kind].__name__}, got "):
            model.forward(params, X)
    with pytest.raises(
        hg.InputError, match=rf"^{kind}: params.U must have shape \(5, \d+\) \(n, its gates side by side\)"
    ):
        model.forward(drawn(MAKERS[kind](4), X), X)


@every_layer
def test_bad_options_and_inputs(kind):
    make = MAKERS[kind]
    with pytest.raises(hg.InputError, match=rf"^{kind}: n must be a positive integer, got 0$"):
        make(0)
    with pytest.raises(hg.InputError, match=rf"^{kind}: returns must be 'sequence', 'last' or 'both', got 'all'$"):
        make(5, returns="all")
    with pytest.raises(
        hg.InputError, match=rf"^{kind}: x must have shape \(batch, time, n_in\), got float64 \(4, 2\)$"
    ):
        make(5).init(KEY, X[0])
    params = drawn(make(5), X)
    states = (STATE, STATE, STATE) if kind == "lstm" else STATE[:2]
    with pytest.raises(
        hg.InputError, match=rf"^{kind}(: x.state must be a pair|_forward: H0 must have shape \(3, 5\))"
    ):
        make(5).forward(params, Sequences(X, None, states))
    _, residuals = make(5, returns="both").forward(params, X)
    with pytest.raises(
        hg.InputError, match=rf"^{kind}: dy must be a pair, of the sequence and of the last state, got "
    ):
        make(5, returns="both").backward(residuals, X)


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
    assert layers.rnn is rnn
