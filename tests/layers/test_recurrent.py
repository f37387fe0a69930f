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


def assert_gradients(model, x, loss, target, params=None):
    """value_and_grad's gradient of params and of x is jax.grad's of the objective."""
    params = jax.tree.map(lambda p: 2 * p + 0.1, model.init(KEY, x)) if params is None else params
    lengths = getattr(x, "lengths", None)

    def of(make, params, x):
        return make(params, x._replace(lengths=lengths) if isinstance(x, Sequences) else x, target)

    given = x._replace(lengths=None) if isinstance(x, Sequences) else x
    expected = jax.jit(jax.value_and_grad(functools.partial(of, hg.objective(model, loss)), argnums=(0, 1)))(
        params, given
    )
    found = jax.jit(functools.partial(of, hg.value_and_grad(model, loss, argnums=(0, 1))))(params, given)
    assert_same(found, expected)


@every_layer
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_init(kind, dtype):
    params = MAKERS[kind](5).init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
    gates = GATES[kind]
    assert type(params) is PARAMS[kind]
    assert [p.shape for p in params] == [(2, gates * 5), (5, gates * 5), (gates * 5,), (5,)][: len(params)]
    assert all(p.dtype == dtype for p in params)
    assert not any(p.any() for p in params[2:])
    rounding = float(jnp.finfo(dtype).eps)
    for U in np.split(np.asarray(params.U, np.float64), gates, axis=1):
        np.testing.assert_allclose(U @ U.T, np.eye(5), atol=8 * rounding)


@every_layer
def test_initialisers(kind):
    def initialiser(key, shape, dtype):
        return jnp.full(shape, len(shape), dtype)

    params = MAKERS[kind](5, init_W=initialiser, init_U=initialiser, init_b=initialiser).init(KEY, X)
    assert all((p == p.ndim).all() for p in params)


@every_layer
def test_in_a_chain(kind):
    make = MAKERS[kind]
    model = hg.chain(hg.linear(3), make(4), make(5, reverse=True, returns="last"), hg.linear(2))
    assert_gradients(model, X, hg.squared_error(), jnp.ones((3, 2)))


@every_layer
def test_from_a_state_with_lengths(kind):
    """dx has X's cotangent, none for the lengths, and the state's in its place."""
    x = Sequences(X, LENGTHS, state_of(kind))
    assert_gradients(MAKERS[kind](5, returns="last"), x, hg.squared_error(), jnp.ones((3, 5)))
    model = MAKERS[kind](5, truncate=2)
    params = model.init(KEY, x)
    y, residuals = model.forward(params, x)
    assert isinstance(y, Sequences)
    assert y.lengths is LENGTHS
    assert y.state is None
    dx, _ = model.backward(residuals, Sequences(jnp.ones_like(y.X)))
    assert jax.tree.structure(dx) == jax.tree.structure(Sequences(X, None, state_of(kind)))


@every_layer
def test_without_a_state_it_starts_from_zeros(kind):
    model = MAKERS[kind](5, returns="both")
    params = model.init(KEY, X)
    y, last = model.forward(params, X)[0]
    (same, same_last), residuals = model.forward(params, Sequences(X, None, state_of(kind, 0.0)))
    assert_same((y, last), (same.X, same_last))
    dx, _ = model.backward(residuals, (same, same_last))
    plain, _ = model.backward(model.forward(params, X)[1], (y, last))
    assert_same(dx.X, plain)
    assert MAKERS[kind](5, returns="last").forward(params, X)[0].tolist() == jax.tree.leaves(last)[0].tolist()


def test_repeat():
    model = hg.chain(hg.linear(5), hg.repeat(hg.residual(lstm(5)), 2))
    assert_gradients(model, X, hg.squared_error(), jnp.ones((3, 4, 5)))


def test_per_example_norms():
    """Example by example: the factors' squared norms are those of one-example gradients."""
    model, loss = gru(5, returns="last"), hg.squared_error()
    params, target = model.init(KEY, X), jnp.ones((3, 5))
    _, factors = jax.jit(hg.value_and_factors(model, loss))(params, X, target)
    grads = jax.jit(
        lambda: [jax.grad(hg.objective(model, loss))(params, X[b : b + 1], target[b : b + 1]) for b in range(3)]
    )()
    for i, factor in enumerate(factors):
        assert_same(factor.sq_norms(), jnp.stack([jnp.sum(grad[i] ** 2) for grad in grads]))


def test_bidirectional_is_two_layers():
    one, other = lstm(5, returns="both"), lstm(3, reverse=True, returns="both")
    model = bidirectional(one, other)
    given = Sequences(X, LENGTHS)
    params = model.init(KEY, given)
    (H, last), residuals = model.forward(params, given)
    (first, first_last), kept = one.forward(params.forwards, given)
    (second, second_last), kept_other = other.forward(params.backwards, given)
    assert_same(H.X, jnp.concatenate([first.X, second.X], axis=-1))
    assert_same(last, (first_last, second_last))
    dx, dparams = model.backward(residuals, (H, last))
    dx_one, dparams_one = one.backward(kept, (first, first_last))
    dx_other, dparams_other = other.backward(kept_other, (second, second_last))
    assert_same(dx.X, dx_one.X + dx_other.X)
    assert_same(hg.materialize(dparams), hg.materialize(BidirectionalParams(dparams_one, dparams_other)))


@pytest.mark.parametrize("returns", ["sequence", "last"])
def test_bidirectional_in_a_chain(returns):
    pair = bidirectional(lstm(3, returns=returns), gru(2, reverse=True, returns=returns))
    assert_gradients(
        hg.chain(pair, hg.linear(2)), X, hg.squared_error(), jnp.ones((3, 4, 2)[:: 1 if returns == "sequence" else 2])
    )
    H0, C0, G0 = STATE[:, :3], STATE[:, 2:], STATE[:, :2]
    if returns == "last":
        x = Sequences(X, LENGTHS, ((H0, C0), G0))
        assert_gradients(pair, x, hg.squared_error(), jnp.ones((3, 5)))


def test_stacked_is_a_chain():
    parts = lstm(5), hg.tanh(), gru(3, returns="last")
    model, chain = stacked(*parts), hg.chain(*parts)
    params = chain.init(KEY, X)
    assert_same(model.init(KEY, X), params)
    assert_same(model.forward(params, X)[0], chain.forward(params, X)[0])
    assert_gradients(model, X, hg.squared_error(), jnp.ones((3, 3)))


def test_stacked_gives_each_layer_its_state():
    model = stacked(rnn(5), lstm(5), gru(5, returns="last"))
    x = Sequences(X, LENGTHS, (state_of("rnn"), state_of("lstm", 0.5), None))
    assert_gradients(model, x, hg.squared_error(), jnp.ones((3, 5)))


def test_a_long_sequence_in_pieces():
    """Each piece starts from the states that the one before ended in."""
    model = stacked(lstm(5, returns="both"), gru(4, returns="both"))
    params = model.init(KEY, X)
    (H, states), _ = model.forward(params, X)
    (first, between), _ = model.forward(params, Sequences(X[:, :1]))
    (second, end), residuals = model.forward(params, Sequences(X[:, 1:], None, between))
    assert_same(H, jnp.concatenate([first.X, second.X], axis=1))
    assert_same(states, end)
    dx, _ = model.backward(residuals, (second, end))
    assert jax.tree.structure(dx.state) == jax.tree.structure(between)


def test_each_step():
    """Past an embedding and a head go lengths and state; on an array each_step is the layer itself."""
    model = hg.chain(each_step(hg.linear(3)), lstm(5), each_step(hg.linear(2)))
    params = model.init(KEY, X)
    x = Sequences(X, LENGTHS, state_of("lstm"))
    y, residuals = model.forward(params, x)
    plain, _ = model.forward(params, X)
    assert isinstance(y, Sequences)
    assert (y.X.shape, plain.shape) == ((3, 4, 2), (3, 4, 2))
    dx, dparams = model.backward(residuals, Sequences(jnp.ones_like(y.X)))

    def reference(params, X, state):
        Z, _ = hg.linear(3).forward(params[0], X)
        H, _ = lstm(5).forward(params[1], Sequences(Z, LENGTHS, state))
        return jnp.sum(hg.linear(2).forward(params[2], H.X)[0])

    assert_same((hg.materialize(dparams), dx.X, dx.state), jax.grad(reference, (0, 1, 2))(params, X, state_of("lstm")))


@pytest.mark.parametrize("reverse", [False, True])
def test_linear_recurrence(reverse):
    model = hg.chain(hg.linear(3), linear_recurrence(reverse=reverse), hg.linear(2))
    assert_gradients(model, X, hg.squared_error(), jnp.ones((3, 4, 2)))
    params = linear_recurrence().init(KEY, X.astype(jnp.float32))
    assert (params.decay.shape, params.decay.dtype) == ((2,), jnp.float32)


@every_layer
def test_bad_params(kind):
    model = MAKERS[kind](5)
    wrong = next(name for name in MAKERS if name != kind)
    for params in (MAKERS[wrong](5).init(KEY, X), (), tuple(model.init(KEY, X)), None):
        with pytest.raises(hg.InputError, match=rf"^{kind}: params must be {PARAMS[kind].__name__}, got "):
            model.forward(params, X)
    with pytest.raises(
        hg.InputError, match=rf"^{kind}: params.U must have shape \(5, \d+\) \(n, its gates side by side\)"
    ):
        model.forward(MAKERS[kind](4).init(KEY, X), X)


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
    params = make(5).init(KEY, X)
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
        pair.forward(pair.init(KEY, X), X)
    params = stacked(rnn(5), rnn(5)).init(KEY, X)
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
        both.forward(both.init(KEY, X), Sequences(X, None, (STATE, STATE[:1])))


def test_layers_say_what_is_inside():
    """`parts`, by which the checker finds the wrong one."""
    model = stacked(bidirectional(rnn(2), rnn(3, reverse=True)), gru(4))
    params = model.init(KEY, X)
    found = [(name, x.shape) for name, _, _, x, _ in model.parts(params, X)]
    assert found == [("0", (3, 4, 2)), ("1", (3, 4, 5))]
    inside = next(model.parts(params, X))[1].parts(params[0], X)
    assert [name for name, *_ in inside] == ["forwards", "backwards"]
    assert layers.rnn is rnn
