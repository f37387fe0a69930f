"""rnn, and what lstm and gru share with it: lengths, direction, truncation, one scan, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, passes
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.cases.sequences import gru, lstm, recurrent, rnn

REFERENCES = {"rnn": rnn, "lstm": lstm, "gru": gru}
DRAWS = {"rnn": (1, 1, False), "lstm": (4, 2, False), "gru": (3, 1, True)}  # gates, states, a second bias
every_rule = pytest.mark.parametrize("op", DRAWS)


def drawn(op, lengths=None, time=5, batch=3):
    """Arguments of a recurrent rule, NumPy arrays."""
    gates, states, inner_bias = DRAWS[op]
    draw = recurrent(gates, states=states, time=time, batch=batch, inner_bias=inner_bias)
    return [*draw(np.random.default_rng(0)), lengths]


def cotangent(op, arguments):
    """Of all outputs."""
    rng = np.random.default_rng(1)
    Y = jax.eval_shape(getattr(rules, op).forward, *arguments)[0]
    return jax.tree.map(lambda y: rng.standard_normal(y.shape), Y)


def both_passes(op, **options):
    """(dY, *arguments) -> output and cotangents of every argument."""
    return functools.partial(passes, getattr(rules, op).with_options(**options))


def test_the_rnn_of_a_book():
    """Zheng Zeyu and Gu Siyu, "TensorFlow: Google's Deep Learning Framework in Practice" (2017, in Chinese), chapter 8:
    two steps of a cell of two, forwards, with a readout; eight decimals are printed."""
    X, W, U = np.array([[[1.0], [2.0]]]), np.array([[0.5, 0.6]]), np.array([[0.1, 0.2], [0.3, 0.4]])
    (H, H_last), _ = rules.rnn_forward(X, W, U, np.array([0.1, -0.1]), np.zeros((1, 2)))
    H, H_last = np.asarray(H), np.asarray(H_last)
    np.testing.assert_allclose(H[0], [[0.53704957, 0.46211716], [0.85973818, 0.88366641]], atol=6e-9)
    np.testing.assert_allclose(H[0] @ np.array([1.0, 2.0]) + 0.1, [1.56128388, 2.72707101], atol=6e-9)
    assert (H_last == H[:, 1]).all()


# The course Sequence Models (Ng, Katanforoosh and Bensouda Mourri, deeplearning.ai, 2018): the exercise of its first
# week derives these passes by hand, draws from NumPy's seed 1, examples as columns, and prints figures.


def test_the_rnn_of_a_course():
    """Four steps of ten examples, and back through them; every output has a cotangent."""
    draw = np.random.RandomState(1).randn
    X, H0, W, U, _, b, _ = (draw(*shape) for shape in ((3, 10, 4), (5, 10), (5, 3), (5, 5), (2, 5), (5, 1), (2, 1)))
    dH = draw(5, 10, 4).transpose(1, 2, 0)
    run = jax.jit(both_passes("rnn"))
    dY = dH, np.zeros((10, 5))
    _, (dX, dW, dU, db, dH0, _) = run(dY, X.transpose(1, 2, 0), W.T, U.T, b[:, 0], H0.T)
    np.testing.assert_allclose(dX[2, :, 1], [-2.07101689, -0.59255627, 0.02466855, 0.01483317], atol=6e-9)
    np.testing.assert_allclose(
        [dH0[3, 2], dW[1, 3], dU[2, 1]], [-0.314942375127, 11.2641044965, 2.30333312658], rtol=5e-12
    )
    np.testing.assert_allclose(db[4], -0.74747722, atol=6e-9)


@every_rule
def test_lengths_equal_shorter_sequences(op):
    """Each example by itself, cut to its length, in both directions; what is past the end has no effect."""
    lengths, states = np.array([2, 5, 3]), DRAWS[op][1]
    X, *others, _ = drawn(op)
    X = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], X, 1e6)
    dY = cotangent(op, [X, *others, lengths])
    outside = np.arange(5)[None] >= lengths[:, None]

    @jax.jit
    def both(dY, lengths, X, *others):
        """All together, and example by example."""
        found, expected = [], []
        for reverse in (False, True):
            run = both_passes(op, reverse=reverse)
            (H, last), (dX, *dparams, _) = run(dY, X, *others, lengths)
            weights = []
            for b, length in enumerate((2, 5, 3)):
                one = functools.partial(jax.tree.map, lambda a, b=b: a[b : b + 1])
                (H_b, last_b), (dX_b, *d, _) = run(
                    (dY[0][b : b + 1, :length], one(dY[1])),
                    X[b : b + 1, :length],
                    *others[:-states],
                    *one(others[-states:]),
                )
                found.append((H[b : b + 1, :length], one(last), dX[b : b + 1, :length], one(dparams[-states:])))
                expected.append((H_b, last_b, dX_b, d[-states:]))
                weights.append(d[:-states])
            found.append((dparams[:-states], H * outside[..., None], dX * outside[..., None]))
            expected.append((jax.tree.map(lambda *ds: sum(ds), *weights), jnp.zeros_like(H), jnp.zeros_like(dX)))
        return found, expected

    assert_same(*both(dY, lengths, X, *others))


@every_rule
@pytest.mark.parametrize("k", [1, 2, 5])
def test_truncated_equals_pieces(op, k):
    """Pieces of k steps, each from the state that the one before ended in, as a constant; k ≥ time changes nothing."""
    states = DRAWS[op][1]
    arguments = drawn(op, time=4)[:-1]
    dH = np.random.default_rng(2).standard_normal((3, 4, 3))

    @jax.jit
    def both(dH, X, *others):
        params, state = others[:-states], others[-states:]
        nothing = jax.tree.map(jnp.zeros_like, state if op == "lstm" else state[0])
        dXs, weights = [], []
        for piece in (slice(start, start + k) for start in range(0, 4, k)):
            (_, last), (dX, *d) = both_passes(op)((dH[:, piece], nothing), X[:, piece], *params, *state)
            state = last if op == "lstm" else (last,)
            dXs.append(dX)
            weights.append(d[: len(params)])
        _, (dX, *d) = both_passes(op, truncate=k)((dH, nothing), X, *others)
        return (dX, d[: len(params)]), (jnp.concatenate(dXs, axis=1), jax.tree.map(lambda *of: sum(of), *weights))

    assert_same(*both(dH, *arguments))


@every_rule
def test_truncated_with_lengths_equals_stop_gradient(op):
    """Forward in time; the table of cases has it in reverse."""
    arguments, lengths = drawn(op)[:-1], np.array([5, 2, 4])
    reference = functools.partial(REFERENCES[op], lengths=lengths, truncate=2)

    @jax.jit
    def both(dY, *arguments):
        return both_passes(op, truncate=2)(dY, *arguments, lengths)[1][:-1], jax.vjp(reference, *arguments)[1](dY)

    assert_same(*both(cotangent(op, arguments), *arguments))


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_recompute_keeps_no_gates(op):
    arguments = *drawn(op)[:-1], np.array([5, 2, 4])

    @jax.jit
    def both(*arguments):
        Y, saved = getattr(rules, op).forward(*arguments)
        same, recomputed = getattr(rules, op).forward(*arguments, residuals="recompute")
        assert ([gate.shape for gate in saved.gates], recomputed.gates) == ([(3, 5, 3)] * 4, None)
        return [(y, hg.materialize(getattr(rules, op).backward(r, Y))) for y, r in ((Y, saved), (same, recomputed))]

    assert_same(*both(*arguments))


@every_rule
def test_the_scan_back_makes_deltas_and_nothing_else(op):
    """No weight's gradient is summed up step by step: nothing of a weight's size leaves the scan, or is carried."""
    arguments = drawn(op)
    rule = getattr(rules, op)
    residuals = jax.eval_shape(rule.forward, *arguments)[1]
    jaxpr = jax.make_jaxpr(rule.backward)(residuals, cotangent(op, arguments))
    (scan,) = (equation for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "scan")
    gates, states, _ = DRAWS[op]
    assert [v.aval.shape for v in scan.outvars] == [(3, 3)] * states + [(5, 3, gates * 3)]


@every_rule
def test_no_steps_and_no_examples(op):
    for batch, time in ((0, 2), (2, 0)):
        arguments = drawn(op, time=time, batch=batch)[:-1]
        dY = cotangent(op, arguments)
        run = jax.jit(lambda dY, *a: [both_passes(op, reverse=reverse)(dY, *a) for reverse in (False, True)])
        for (H, last), (dX, *_) in run(dY, *arguments):
            assert H.shape == (batch, time, 3)
            assert dX.shape == (batch, time, 2)
            assert_same([np.asarray(a) for a in jax.tree.leaves(last)], arguments[-DRAWS[op][1] :])


def test_relu_is_flat_at_zero():
    """Pre-activations of exactly 0: relu′(0) = 0, as JAX's."""
    zeros, ones = np.zeros((1, 2, 1)), np.ones((1, 1))
    run = jax.jit(both_passes("rnn", activation="relu"))
    _, cotangents = run((np.ones((1, 2, 1)), ones), zeros, ones, ones, np.zeros(1), np.zeros((1, 1)))
    assert all(not np.any(c) for c in cotangents[:-1])


@every_rule
def test_impossible_lengths(op):
    """Refused where the numbers are known; NaN in that example alone where they are traced."""
    arguments = drawn(op)[:-1]
    run, dY = jax.jit(both_passes(op)), cotangent(op, arguments)
    for lengths, wrong in (([1, 0, 2], 0), ([5, 6, 1], 6), ([-1, 5, 9], -1)):
        for given in (np.array(lengths), jnp.array(lengths)):
            refuses(getattr(rules, op), f"lengths must be in 1 … 5, the steps of X, got {wrong}", *arguments, given)
        (H, last), (dX, *_) = run(dY, *arguments, np.array(lengths))
        bad = np.array([not 1 <= length <= 5 for length in lengths])
        for array in (H, dX, *jax.tree.leaves(last)):
            np.testing.assert_array_equal(np.isnan(array).reshape(3, -1).all(1), bad)
            np.testing.assert_array_equal(np.isnan(array).reshape(3, -1).any(1), bad)


@every_rule
def test_lengths_of_every_integer_dtype(op):
    arguments = drawn(op)[:-1]
    dtypes = ("int32", "int8", "uint8", "int64", "uint64")
    lengths = [np.array([5, 2, 4], dtype) for dtype in dtypes]

    @jax.jit
    def run(lengths, *arguments):
        return [getattr(rules, op).forward(*arguments, one)[0] for one in lengths]

    expected, *others, (H, _) = run([*lengths, np.array([5, 2**32 + 2, 4])], *arguments)
    for found in others:
        assert_same(found, expected)
    assert np.isnan(H[1]).all()


@every_rule
def test_arguments_of_the_wrong_shape(op):
    for place, change, sentence in (
        (0, lambda a: a[0], "X must have shape (batch, time, n_in), got float64 (5, 2)"),
        (1, lambda a: a[:1], "W must have shape (2, …) to meet X (3, 5, 2) and U (3, …), got …"),
        (2, lambda a: a[:, :2], "U must have shape (n, …n), got float64 (3, 2)"),
        (3, lambda a: a[:1], "b must have shape (…,) to meet U (3, …), got float64 (1,)"),
        (-2, lambda a: a[:2], "…0 must have shape (3, 3) (one state for each example, …), got float64 (2, 3)"),
        (-2, lambda a: a[:, :1], "…0 must have shape (3, 3) (one state for …), got float64 (3, 1)"),
        (-2, lambda a: a.astype(int), "…0 must have a floating-point dtype, got int64 (3, 3)"),
        (-2, lambda a: None, "…0 must be an array, got NoneType"),
        (-1, lambda a: np.ones(2, int), "lengths must have shape (3,) (one for each example), got int64 (2,)"),
        (-1, lambda a: np.ones(3), "lengths must be integers, got float64 (3,)"),
        (-1, lambda a: [1, 2, 3], "lengths must be an array of shape (3,), got list"),
    ):
        arguments = drawn(op)
        arguments[place] = change(arguments[place])
        refuses(getattr(rules, op), sentence, *arguments)


@every_rule
def test_options_of_the_wrong_kind(op):
    refuse = functools.partial(refuses, getattr(rules, op))
    refuse("reverse must be True or False, got 1", *drawn(op), reverse=1)
    for truncate in (0, -2, 1.5, True):
        refuse(f"truncate must be a positive integer, got {truncate}", *drawn(op), truncate=truncate)
    name, choices = ("activation", "'tanh' or 'relu'") if op == "rnn" else ("residuals", "'save' or 'recompute'")
    refuse(f"{name} must be {choices}, got 'sigmoid'", *drawn(op), **{name: "sigmoid"})


@every_rule
def test_cotangents_of_both_outputs(op):
    arguments = drawn(op)
    residuals = jax.eval_shape(getattr(rules, op).forward, *arguments)[1]
    dH, dlast = cotangent(op, arguments)
    backward = functools.partial(getattr(rules, op).backward, residuals)
    form = r"\(dH, \(dH_last, dC_last\)\)" if op == "lstm" else r"\(dH, dH_last\)"
    for wrong in (dH, None, (dH,)):
        with pytest.raises(hg.InputError, match=rf"^{op}_backward: dY must be {form}, got "):
            backward(wrong)
    bad = np.ones((3, 4))
    with pytest.raises(hg.InputError, match=r": dH_last must be the cotangent of H_last, float64 \(3, 3\), got "):
        backward((dH, (bad, dlast[1]) if op == "lstm" else bad))
    if op == "lstm":
        with pytest.raises(hg.InputError, match=r": dC_last must be the cotangent of C_last, float64 \(3, 3\), got "):
            backward((dH, (dlast[0], bad)))
