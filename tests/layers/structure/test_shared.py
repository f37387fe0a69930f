"""shared: the parameters of one layer at several places, one behind the other, side by side, and inside repeat."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same, both_gradients, check_right, drawn

import handgrad as hg
from handgrad import layers
from handgrad.factors.coupled import Coupled
from handgrad.training import two_phase

KEY = jax.random.key(0, impl="unsafe_rbg")
RNG = np.random.default_rng(0)
X, TARGET = (jax.device_put(RNG.standard_normal((5, 4))) for _ in range(2))
LINEAR, LOSS = hg.linear(4), hg.l2_loss()


def difference():
    """y₀ − y₁: what a siamese network compares its branches by."""
    return hg.Layer(lambda key, x: (), lambda params, x, key=None: (x[0] - x[1], ()), lambda _, dy: ((dy, -dy), ()))


def siamese(encoder):
    return hg.chain(twins=hg.shared(hg.branches(encoder, encoder), {"1": "0"}), compare=difference())


def plain(*places):
    """One example through linear layers with the weights of these places, and tanh: in plain jax.numpy."""

    def run(params, x):
        (W, b), *_ = params
        for place in places:
            x = jnp.tanh(x) if place == "tanh" else x @ W[place] + b[place]
        return x

    return run


def plain_siamese(params, x):
    ((W, b), _, (V, _)), _ = params["twins"]
    one, other = (jnp.tanh(x @ W + b) @ V for x in x)
    return one - other


def plain_array(params, x):
    (W, b), (_, c) = params["a"], params["b"]
    return jnp.tanh(x @ W + b) @ W + c


SIAMESE = siamese(hg.chain(hg.linear(3), hg.tanh(), hg.linear(4, bias=False)))
BEHIND = hg.shared(hg.chain(LINEAR, hg.tanh(), LINEAR, hg.tanh(), LINEAR), {"2": "0", "4": "0"})
TWICE = hg.shared(hg.shared(hg.chain(LINEAR, LINEAR, hg.tanh(), LINEAR), {"1": "0"}), {"3": "0"})
REPEATED = hg.repeat(hg.shared(hg.chain(LINEAR, hg.tanh(), LINEAR), {"2": "0"}), 2)
REPEATS = hg.shared(hg.chain(hg.repeat(LINEAR, 2), hg.tanh(), hg.repeat(LINEAR, 2)), {"2": "0"})
ARRAY = hg.shared(hg.chain(a=LINEAR, tanh=hg.tanh(), b=LINEAR), {"b.W": "a.W"})
# A model, its x, and one example through the same network, one weight for all its places.
MODELS = {
    "behind": (BEHIND, X, plain(..., "tanh", ..., "tanh", ...)),
    "side by side": (SIAMESE, (X, X[::-1]), plain_siamese),
    "an array of a layer": (ARRAY, X, plain_array),
    "repeated": (REPEATED, X, plain(0, "tanh", 0, 1, "tanh", 1)),
    "two repeats": (REPEATS, X, plain(0, 1, "tanh", 0, 1)),
    "shared twice": (TWICE, X, plain(..., ..., "tanh", ...)),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_norms(name):
    """Against jax.grad of the plain network, one example at a time: norms have the cross terms between the places."""
    model, x, reference = MODELS[name]

    def one(params, x, target):
        return jnp.sum((reference(params, x) - target) ** 2) / 2

    @jax.jit
    def both(params, x):
        losses, factors = hg.value_and_factors(model, LOSS)(params, x, TARGET)
        _, dx = hg.grad(model, LOSS, argnums=(0, 1))(params, x, TARGET, jnp.ones(5))
        value, (g, each_dx) = jax.vmap(jax.value_and_grad(one, (0, 1)), (None, 0, 0))(params, x, TARGET)
        squares = sum(jnp.sum(leaf.reshape(5, -1) ** 2, axis=1) for leaf in jax.tree.leaves(g))
        found = losses, hg.materialize(factors), dx, hg.sq_norms(factors), hg.per_example_grads(factors)
        return found, (value, jax.tree.map(lambda leaf: leaf.sum(0), g), each_dx, squares, g)

    assert_same(*both(drawn(model, x, 0.5), x))


def test_nothing_is_stored_twice():
    params = jax.eval_shape(BEHIND.init, KEY, X)
    assert jax.tree.map(lambda p: p.shape, params) == (hg.LinearParams((4, 4), (4,)), (), (), (), ())

    def run(params):
        _, residuals = BEHIND.forward(params, X)
        assert residuals[0].W is residuals[2].W is residuals[4].W is params[0].W
        W = BEHIND.backward(residuals, TARGET)[1][0].W
        assert [type(site) for site in W.sites] == [hg.factors.Outer] * 3

    jax.eval_shape(run, params)


def test_gradients_that_are_sums_already_add_up():
    block = layers.reversible_sequence(hg.linear(2), hg.tanh(), 2)
    model = hg.shared(hg.chain(block, hg.tanh(), block), {"2": "0"})
    params = drawn(model, X, 0.5)
    _, factors = jax.eval_shape(lambda params: model.backward(model.forward(params, X)[1], X), params)
    assert not any(map(hg.factors.is_factor, jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)))
    assert_same(*both_gradients(model, LOSS)(params, X, TARGET))


def test_what_couples_at_one_place_couples_the_sum():
    model = hg.shared(hg.chain(LINEAR, hg.batch_norm(), LINEAR, LINEAR), {"2": "0"})
    params = jax.eval_shape(model.init, KEY, X)
    _, factors = jax.eval_shape(hg.value_and_factors(model, LOSS), params, X, TARGET)
    assert isinstance(factors[0].W, Coupled)
    assert isinstance(factors[0].W.factor, hg.factors.Shared)
    assert factors[0].W.by.startswith("in layer 1: batch_norm couples")
    assert isinstance(factors[3].W, hg.factors.Outer)


def broken(layer):
    return hg.Layer(layer.init, layer.forward, lambda kept, dy: jax.tree.map(lambda d: 2 * d, layer.backward(kept, dy)))


def test_the_checker():
    x = MODELS["side by side"][1]
    check_right(hg.check_model(SIAMESE, LOSS, drawn(SIAMESE, x, 0.5), x, TARGET))
    model = siamese(hg.chain(LINEAR, broken(hg.tanh())))
    params = drawn(model, x, 0.5)
    report = hg.check_model(model, LOSS, params, x, TARGET, contracts=False, transforms=(), differences=False)
    assert report.verdict == "FAIL"
    assert report.reason.startswith("the first wrong layer, from the loss backwards, is twins.1.1;")


def test_clipping_and_two_phase_updates():
    """They take a shared parameter as one: clipped by an example's whole gradient, updated by all places'."""
    optimizer = optax.adam(0.1)

    @jax.jit
    def run(params):
        _, factors = hg.value_and_factors(BEHIND, LOSS)(params, X, TARGET)
        norms, g = jnp.sqrt(hg.sq_norms(factors)), hg.per_example_grads(factors)
        clipped = jax.tree.map(lambda leaf: jnp.tensordot(jnp.minimum(1, 2 / norms), leaf, 1), g)
        state = optimizer.init(params)
        changes, _ = optimizer.update(hg.materialize(factors, jnp.full(5, 0.2)), state)
        found = hg.clipped_grad(BEHIND, LOSS, l2_clip_norm=2.0, normalize_by=1.0)(params, X, TARGET)
        updated, _ = two_phase.update(factors, params, state, optimizer)
        return (found, updated), (clipped, optax.apply_updates(params, changes))

    assert_same(*run(drawn(BEHIND, X, 0.5)))


def test_refusals():
    own = drawn(LINEAR, X)
    once, twice = (own, (), (), (), ()), (own, (), own, (), ())
    apart = "places and sources must lie apart from each other, got"
    named = hg.shared(hg.chain(a=LINEAR, b=LINEAR), {"head": "a"})
    narrow = hg.shared(hg.chain(hg.linear(3), hg.linear(2)), {"1": "0"})
    unlike = hg.shared(hg.chain(hg.linear(4, bias=False), LINEAR), {"1": "0"})
    rows = {
        "shared: expected a Layer, .*": lambda: hg.shared(hg.linear, {"1": "0"}),
        f"shared: {apart} '1' and '1.W'": lambda: hg.shared(LINEAR, {"1": "1.W"}),
        f"shared: {apart} '1' and '1'": lambda: hg.shared(LINEAR, {"1": "0", "2": "1"}),
        r"shared: params.1.W must have the shape of params.0.W, \(4, 3\), got \(3, 2\)": lambda: narrow.init(KEY, X),
        "shared: params.1 must have the structure of params.0, .*": lambda: unlike.init(KEY, X),
        "shared: expected params with a place 'head', got a, b": lambda: named.init(KEY, X),
        r"shared: params.2 must be \(\), they are those of 0, got LinearParams": lambda: BEHIND.forward(twice, X),
        "in layer 0: linear_forward: X must have shape .*": lambda: BEHIND.forward(once, X[:, :3]),
    }
    assert_refused({sentence: lambda call=call: jax.eval_shape(call) for sentence, call in rows.items()})
