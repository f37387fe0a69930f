"""rnn, lstm, gru and linear_recurrence in other ways: published numbers, shorter sequences, pieces, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules
from handgrad.cases.sequences import gru, linear_recurrence, lstm, recurrent, rnn

REFERENCES = {"rnn": rnn, "lstm": lstm, "gru": gru}
DRAWS = {"rnn": (1, 1, False), "lstm": (4, 2, False), "gru": (3, 1, True)}
every_rule = pytest.mark.parametrize("op", REFERENCES)
both_ways = pytest.mark.parametrize("reverse", [False, True])


def drawn(op, lengths=None, time=5):
    """Arguments of a recurrent rule with a batch of three."""
    gates, states, inner_bias = DRAWS[op]
    arguments = recurrent(gates, states=states, time=time, inner_bias=inner_bias)(np.random.default_rng(0))
    return [*map(jnp.asarray, arguments), lengths]


@functools.cache
def compiled(op, options=()):
    """(dY, *arguments) -> output and cotangents of every argument."""
    forward, backward = (
        functools.partial(getattr(rules, f"{op}_{which}"), **dict(options)) for which in ("forward", "backward")
    )

    def both(dY, *arguments):
        Y, residuals = forward(*arguments)
        return Y, hg.materialize(backward(residuals, dY))

    return jax.jit(both)


def passes(op, arguments, **options):
    """Output, cotangents of every argument, and the cotangent of the output that they come from."""
    rng = np.random.default_rng(1)
    Y = jax.eval_shape(functools.partial(getattr(rules, op).forward, **options), *arguments)[0]
    dY = jax.tree.map(lambda y: jnp.asarray(rng.standard_normal(y.shape)), Y)
    return *compiled(op, tuple(options.items()))(dY, *arguments), dY


# Published numbers.


def test_the_rnn_of_a_book():
    """Zheng Zeyu and Gu Siyu, "TensorFlow: Google's Deep Learning Framework in Practice" (2017, in Chinese), chapter 8:
    two steps of a cell of two, forwards, with a readout; eight decimals are printed."""
    X, W, U = jnp.array([[[1.0], [2.0]]]), jnp.array([[0.5, 0.6]]), jnp.array([[0.1, 0.2], [0.3, 0.4]])
    (H, H_last), _ = rules.rnn_forward(X, W, U, jnp.array([0.1, -0.1]), jnp.zeros((1, 2)))
    np.testing.assert_allclose(H[0], [[0.53704957, 0.46211716], [0.85973818, 0.88366641]], atol=6e-9)
    np.testing.assert_allclose(H[0] @ jnp.array([1.0, 2.0]) + 0.1, [1.56128388, 2.72707101], atol=6e-9)
    assert (H_last == H[:, 1]).all()


# The others are of the course Sequence Models (Ng, Katanforoosh and Bensouda Mourri, deeplearning.ai, 2018). The
# exercise of its first week derives these passes by hand, draws from NumPy's seed 1, examples as columns, and prints
# figures for students to compare with. Its gates come in the order f, i, o, g, the weights of h before those of x.


def columns(arrays, order="fiog"):
    """Weights and biases of the four gates as W, U and b of ours, in the order i, f, g, o."""
    weights, biases = (np.concatenate([arrays[k][order.index(gate)] for gate in "ifgo"]) for k in (0, 1))
    return weights[:, 5:].T, weights[:, :5].T, biases[:, 0]


def test_the_rnn_of_a_course():
    """Four steps of ten examples, and back through them; every output has a cotangent."""
    draw = np.random.RandomState(1).randn
    X, H0, W, U, _, b, _ = (draw(*shape) for shape in ((3, 10, 4), (5, 10), (5, 3), (5, 5), (2, 5), (5, 1), (2, 1)))
    dH = draw(5, 10, 4).transpose(1, 2, 0)
    arguments = [jnp.asarray(a) for a in (X.transpose(1, 2, 0), W.T, U.T, b[:, 0], H0.T)]
    _, residuals = rules.rnn_forward(*arguments)
    dX, dW, dU, db, dH0, _ = hg.materialize(rules.rnn_backward(residuals, (jnp.asarray(dH), jnp.zeros((10, 5)))))
    np.testing.assert_allclose(dX[2, :, 1], [-2.07101689, -0.59255627, 0.02466855, 0.01483317], atol=6e-9)
    np.testing.assert_allclose(
        [dH0[3, 2], dW[1, 3], dU[2, 1]], [-0.314942375127, 11.2641044965, 2.30333312658], rtol=5e-12
    )
    np.testing.assert_allclose(db[4], -0.74747722, atol=6e-9)


def test_the_lstm_of_a_course():
    """One step of ten examples, and back, from cotangents of both states."""
    draw = np.random.RandomState(1).randn
    X, H0, C0 = draw(3, 10), draw(5, 10), draw(5, 10)
    W, U, b = columns(list(zip(*((draw(5, 8), draw(5, 1)) for _ in range(4)), strict=True)))
    draw(2, 5), draw(2, 1)  # the readout's
    dH_last, dC_last = (jnp.asarray(draw(5, 10).T) for _ in range(2))
    arguments = [jnp.asarray(a) for a in (X.T[:, None], W, U, b, H0.T, C0.T)]
    (H, (H_last, C_last)), residuals = rules.lstm_forward(*arguments)
    np.testing.assert_allclose(H_last[:4, 4], [-0.66408471, 0.0036921, 0.02088357, 0.22834167], atol=6e-9)
    np.testing.assert_allclose(C_last[:4, 2], [0.63267805, 1.00570849, 0.35504474, 0.20690913], atol=6e-9)
    cotangents = hg.materialize(rules.lstm_backward(residuals, (jnp.zeros_like(H), (dH_last, dC_last))))
    dX, dW, dU, db, dH0, dC0, _ = cotangents
    found = [dX[2, 0, 1], dH0[3, 2], dC0[3, 2], dU[1, 8], dU[2, 1], dU[1, 13], dU[2, 16]]
    printed = [3.23055911511, -0.0639621419711, 0.797522038797]  # then of f, i, g and o
    printed += [-0.147954838164, 1.05749805523, 2.30456216369, 0.331311595289]
    np.testing.assert_allclose(found, printed, rtol=5e-12)
    np.testing.assert_allclose(db[4::5], [-0.40142491, 0.18864637, 0.25587763, 0.13893342], atol=6e-9)
    assert dW.shape == (3, 20)


# One scan, whichever way it is asked.


@every_rule
@both_ways
def test_lengths_equal_shorter_sequences(op, reverse):
    """Each example by itself, cut to its length; what is past the end has no say."""
    lengths = np.array([2, 5, 3])
    X, *others, _ = drawn(op)
    X = jnp.where(np.arange(5)[None, :, None] < lengths[:, None, None], X, 1e6)
    states = DRAWS[op][1]
    (H, last), (dX, *dparams, _), (dH, dlast) = passes(op, [X, *others, lengths], reverse=reverse)
    total = None
    for b, length in enumerate(lengths):
        alone = [a[b : b + 1] for a in others[-states:]]
        one = functools.partial(jax.tree.map, lambda a, b=b: a[b : b + 1])
        dY = dH[b : b + 1, :length], one(dlast)
        run = compiled(op, (("reverse", reverse),))
        Y, cotangents = run(dY, X[b : b + 1, :length], *others[:-states], *alone)
        assert_same(Y, (H[b : b + 1, :length], one(last)))
        assert_same(cotangents[0], dX[b : b + 1, :length])
        assert_same(list(cotangents[-1 - states : -1]), one(dparams[-states:]))
        weights = list(cotangents[1 : -1 - states])
        total = weights if total is None else jax.tree.map(jnp.add, total, weights)
    assert_same(total, dparams[:-states])
    outside = np.arange(5)[None] >= lengths[:, None]
    assert not np.asarray(H)[outside].any()
    assert not np.asarray(dX)[outside].any()


@every_rule
def test_reverse_is_forward_on_the_sequence_turned_round(op):
    X, *others = drawn(op)
    (H, last), *_ = passes(op, [X, *others], reverse=True)
    (turned, last_turned), *_ = passes(op, [X[:, ::-1], *others])
    assert_same((H, last), (turned[:, ::-1], last_turned))


@every_rule
@pytest.mark.parametrize("lengths", [None, np.array([5, 2, 4])], ids=["all", "lengths"])
@pytest.mark.parametrize("truncate", [1, 2, 5])
def test_truncated_equals_stop_gradient(op, truncate, lengths):
    """k = 1 leaves each step alone; k ≥ time changes nothing."""
    arguments = drawn(op, lengths)
    reference = functools.partial(REFERENCES[op], lengths=lengths, truncate=truncate)
    _, cotangents, dY = passes(op, arguments, truncate=truncate)
    expected = jax.vjp(reference, *arguments[:-1])[1](dY)
    assert_same(cotangents[:-1], expected)
    whole = passes(op, arguments)[1]
    differences = [float(jnp.abs(a - b).max()) for a, b in zip(cotangents[:-1], whole[:-1], strict=True)]
    assert (max(differences) > 1e-3) == (truncate < 5)


@every_rule
def test_truncated_equals_pieces(op):
    """Pieces of k steps, each from the state that the one before ended in, taken as a constant."""
    arguments = drawn(op, time=4)
    X, *params = arguments[: -1 - DRAWS[op][1]]
    states = arguments[-1 - DRAWS[op][1] : -1]
    dH = jnp.asarray(np.random.default_rng(2).standard_normal((3, 4, 3)))
    zeros = jax.tree.map(jnp.zeros_like, tuple(states))
    nothing = zeros if op == "lstm" else zeros[0]
    dXs, weights = [], []
    for piece in (slice(0, 2), slice(2, 4)):
        (_, last), (dX, *others) = compiled(op)((dH[:, piece], nothing), X[:, piece], *params, *states)
        states = last if op == "lstm" else (last,)
        dXs.append(dX)
        weights.append(others[: len(params)])
    _, (dX, *others) = compiled(op, (("truncate", 2),))((dH, nothing), *arguments)
    assert_same(dX, jnp.concatenate(dXs, axis=1))
    assert_same(others[: len(params)], jax.tree.map(jnp.add, *weights))


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_recompute_keeps_no_gates(op):
    arguments = drawn(op, np.array([5, 2, 4]))
    forward = getattr(rules, op).forward
    (Y, saved), (same, recomputed) = forward(*arguments), forward(*arguments, residuals="recompute")
    assert_same(Y, same)
    assert (saved.gates.shape, recomputed.gates) == ((3, 5, 12), None)
    dY = jax.tree.map(jnp.ones_like, Y)
    backward = getattr(rules, op).backward
    assert_same(hg.materialize(backward(saved, dY)), hg.materialize(backward(recomputed, dY)))


@every_rule
def test_the_scan_back_makes_deltas_and_nothing_else(op):
    """No weight's gradient is summed up step by step: nothing of a weight's size leaves the scan, or is carried."""
    arguments = drawn(op)
    Y, residuals = getattr(rules, op).forward(*arguments)
    backward = getattr(rules, op).backward
    jaxpr = jax.make_jaxpr(lambda dY: backward(residuals, dY))(jax.tree.map(jnp.ones_like, Y))
    (scan,) = (equation for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "scan")
    gates, states, _ = DRAWS[op]
    assert [v.aval.shape for v in scan.outvars] == [(3, 3)] * states + [(5, 3, gates * 3)]


@every_rule
def test_no_steps_and_no_examples(op):
    for batch, time in ((0, 2), (2, 0)):
        gates, states, inner_bias = DRAWS[op]
        draw = recurrent(gates, states=states, batch=batch, time=time, inner_bias=inner_bias)
        arguments = [*map(jnp.asarray, draw(np.random.default_rng(0)))]
        for reverse in (False, True):
            (H, last), (dX, *_), _ = passes(op, arguments, reverse=reverse)
            assert H.shape == (batch, time, 3)
            assert dX.shape == (batch, time, 2)
            assert_same(jax.tree.leaves(last), arguments[-states:])


def test_relu_is_flat_at_zero():
    """Pre-activations of exactly 0: relu′(0) = 0, as JAX's."""
    zeros, ones = jnp.zeros((1, 2, 1)), jnp.ones((1, 1))
    Y, residuals = rules.rnn_forward(zeros, ones, ones, jnp.zeros(1), jnp.zeros((1, 1)), activation="relu")
    cotangents = hg.materialize(rules.rnn_backward(residuals, jax.tree.map(jnp.ones_like, Y), activation="relu"))
    assert all(not c.any() for c in cotangents[:-1])


@both_ways
@pytest.mark.parametrize("time", [1, 2, 3, 8, 33])
def test_the_associative_scan_equals_a_loop(time, reverse):
    rng = np.random.default_rng(0)
    A, B, H0 = (jnp.asarray(rng.uniform(-1, 1, shape)) for shape in ((2, time, 3), (2, time, 3), (2, 3)))
    H, cotangents, dH = passes("linear_recurrence", (A, B, H0), reverse=reverse)
    expected, pullback = jax.vjp(functools.partial(linear_recurrence, reverse=reverse), A, B, H0)
    assert_same((H, cotangents), (expected, pullback(dH)))


def test_a_running_sum():
    """With decays of 1, H is the cumulative sum, and so is its cotangent from the other end."""
    B = jnp.arange(1.0, 6)[None, :, None]
    H, residuals = rules.linear_recurrence_forward(jnp.ones_like(B), B)
    assert H[0, :, 0].tolist() == [1, 3, 6, 10, 15]
    dA, dB, dH0 = rules.linear_recurrence_backward(residuals, jnp.ones_like(H))
    assert dB[0, :, 0].tolist() == [5, 4, 3, 2, 1]
    assert dA[0, :, 0].tolist() == [0, 4 * 1, 3 * 3, 2 * 6, 1 * 10]
    assert dH0 is None


# Bad input.


@every_rule
@pytest.mark.parametrize(("lengths", "wrong"), [([1, 0, 2], 0), ([5, 6, 1], 6), ([-1, 5, 9], -1)], ids=str)
def test_impossible_lengths(op, lengths, wrong):
    """Refused where the numbers are known; NaN in that example alone where they are traced."""
    arguments = drawn(op, np.array(lengths))
    forward = getattr(rules, op).forward
    for given in (np.array(lengths), jnp.array(lengths)):
        with pytest.raises(
            hg.InputError, match=rf"^{op}_forward: lengths must be in 1 … 5, the steps of X, got {wrong}$"
        ):
            forward(*arguments[:-1], given)
    (H, last), (dX, *_), _ = jax.jit(functools.partial(passes, op))(arguments)
    bad = np.array([not 1 <= length <= 5 for length in lengths])
    for array in (H, dX, *jax.tree.leaves(last)):
        np.testing.assert_array_equal(np.isnan(array).reshape(3, -1).all(1), bad)
        np.testing.assert_array_equal(np.isnan(array).reshape(3, -1).any(1), bad)


@every_rule
def test_lengths_of_every_integer_dtype(op):
    arguments = drawn(op)[:-1]
    forward = getattr(rules, op).forward
    expected = forward(*arguments, np.array([5, 2, 4]))[0]
    for dtype in ("int8", "uint8", "int64", "uint64"):
        assert_same(jax.jit(forward)(*arguments, np.array([5, 2, 4], dtype))[0], expected)
    H, _ = jax.jit(forward)(*arguments, np.array([5, 2**32 + 2, 4]))[0]
    assert np.isnan(H[1]).all()


@every_rule
@pytest.mark.parametrize(
    ("place", "change", "sentence"),
    [
        (0, lambda a: a[0], r"X must have shape \(batch, time, n_in\), got float64 \(5, 2\)$"),
        (1, lambda a: a[:1], r"W must have shape \(2, \d+\) to meet X \(3, 5, 2\) and U \(3, \d+\), got "),
        (2, lambda a: a[:, :2], r"U must have shape \(n, (\d )?n\), got float64 \(3, 2\)$"),
        (3, lambda a: a[:1], r"b must have shape \(\d+,\) to meet U \(3, \d+\), got float64 \(1,\)$"),
        (-2, lambda a: a[:2], r".0 must have shape \(3, 3\) \(one state for each example, .*\), got float64 \(2, 3\)$"),
        (-2, lambda a: a[:, :1], r".0 must have shape \(3, 3\) \(one state for .*\), got float64 \(3, 1\)$"),
        (-2, lambda a: a.astype(int), r".0 must have a floating-point dtype, got int64 \(3, 3\)$"),
        (-2, lambda a: None, r".0 must be an array, got NoneType$"),
        (-1, lambda a: np.ones(2, int), r"lengths must have shape \(3,\) \(one for each example\), got int64 \(2,\)$"),
        (-1, lambda a: np.ones(3), r"lengths must be integers, got float64 \(3,\)$"),
        (-1, lambda a: [1, 2, 3], r"lengths must be an array of shape \(3,\), got list$"),
    ],
)
def test_arguments_of_the_wrong_shape(op, place, change, sentence):
    arguments = drawn(op)
    arguments[place] = change(arguments[place])
    with pytest.raises(hg.InputError, match=f"^{op}_forward: {sentence}"):
        getattr(rules, op).forward(*arguments)


@every_rule
def test_options_of_the_wrong_kind(op):
    forward = functools.partial(getattr(rules, op).forward, *drawn(op))
    with pytest.raises(hg.InputError, match=rf"^{op}_forward: reverse must be True or False, got 1$"):
        forward(reverse=1)
    for truncate in (0, -2, 1.5, True):
        with pytest.raises(
            hg.InputError, match=rf"^{op}_forward: truncate must be a positive integer, got {truncate}$"
        ):
            forward(truncate=truncate)
    name, choices = ("activation", "'tanh' or 'relu'") if op == "rnn" else ("residuals", "'save' or 'recompute'")
    with pytest.raises(hg.InputError, match=rf"^{op}_forward: {name} must be {choices}, got 'sigmoid'$"):
        forward(**{name: "sigmoid"})


@every_rule
def test_cotangents_of_both_outputs(op):
    arguments = drawn(op)
    Y, residuals = getattr(rules, op).forward(*arguments)
    dH, dlast = jax.tree.map(jnp.ones_like, Y)
    backward = functools.partial(getattr(rules, op).backward, residuals)
    form = r"\(dH, \(dH_last, dC_last\)\)" if op == "lstm" else r"\(dH, dH_last\)"
    for wrong in (dH, None, (dH,)):
        with pytest.raises(hg.InputError, match=rf"^{op}_backward: dY must be {form}, got "):
            backward(wrong)
    bad = jnp.ones((3, 4))
    with pytest.raises(hg.InputError, match=r": dH_last must be the cotangent of H_last, float64 \(3, 3\), got "):
        backward((dH, (bad, dlast[1]) if op == "lstm" else bad))
    if op == "lstm":
        with pytest.raises(hg.InputError, match=r": dC_last must be the cotangent of C_last, float64 \(3, 3\), got "):
            backward((dH, (dlast[0], bad)))


def test_a_gru_has_a_second_bias():
    X, W, U, b, _, H0, _ = drawn("gru")
    with pytest.raises(hg.InputError, match=r"^gru_forward: c must have shape \(3,\) to meet U \(3, 9\), got float64"):
        rules.gru_forward(X, W, U, b, b, H0)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((2, 3), (2, 3), (2, 3)), r"A must have shape \(batch, time, n\), got float64 \(2, 3\)$"),
        (((2, 3, 4), (2, 3, 1), (2, 4)), r"B must have shape \(2, 3, 4\) like A, got float64 \(2, 3, 1\)$"),
        (((2, 3, 4), (2, 3, 4), (1, 4)), r"H0 must have shape \(2, 4\) \(one state .*\), got float64 \(1, 4\)$"),
    ],
)
def test_linear_recurrence_of_the_wrong_shape(shapes, sentence):
    with pytest.raises(hg.InputError, match=f"^linear_recurrence_forward: {sentence}"):
        rules.linear_recurrence_forward(*map(jnp.ones, shapes))
