"""What every rule refuses, and what labels outside the classes do."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_programs import OPS, in_dtype, is_floating

import handgrad as hg
from handgrad.cases import FAMILIES, first_rows

RNG = np.random.default_rng(0)
X = jax.device_put(RNG.standard_normal((4, 3)))
FIRST = first_rows()
every_rule = pytest.mark.parametrize("op", [pytest.param(op, marks=pytest.mark.xdist_group(op)) for op in OPS])


def good_arguments(op):
    """Good arguments of any rule, float64: its first row's."""
    return [in_dtype(a, jnp.float64) for a in FIRST[op].arguments()]


@functools.cache
def run_forward(op):
    """Output and residuals; of zeros, since an error looks at shapes and dtypes alone."""
    return jax.tree.map(zeros, jax.eval_shape(FIRST[op].settled.forward, *good_arguments(op)))


def zeros(a):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.asarray(np.zeros(a.shape, a.dtype))


def message_of(function, *arguments):
    """What the function says as it refuses its arguments at trace time."""
    with pytest.raises(hg.InputError) as raised:
        jax.eval_shape(function, *arguments)
    return str(raised.value).split("\n")[0]


@every_rule
def test_a_cotangent_of_the_wrong_kind(op):
    """The only one, or the first of several."""
    Y, residuals = run_forward(op)
    (y, *others), structure = jax.tree.flatten(Y)
    backward = functools.partial(FIRST[op].settled.backward, residuals)
    wrong_shapes = [
        (*y.shape[:-1], y.shape[-1] + 1) if y.ndim else (2,),
        (*y.shape[:-1], 2 if y.shape[-1:] == (1,) else 1) if y.ndim else (1,),  # which broadcasts
        (1, *y.shape),
    ]
    for dy in (
        *(np.ones(shape) for shape in wrong_shapes),
        np.ones(y.shape, np.float32),
        np.ones(y.shape, int),
        [1.0],
        None,
    ):
        dY = structure.unflatten([dy, *others])
        got = {list: "list", type(None): "NoneType"}.get(type(dy)) or f"{dy.dtype} {dy.shape}"
        function, _, sentence = message_of(lambda dY=dY: backward(dY)).partition(": ")
        assert function == f"{op}_backward"
        assert sentence.startswith("d")
        assert f" must be the cotangent of {sentence[1]}, float64 {y.shape}, got {got}" in sentence


@every_rule
def test_residuals_of_another_rule(op):
    """Another rule's, the bare arrays in a tuple, and none at all; the last two as no-one's."""
    Y, residuals = run_forward(op)
    other = run_forward("linear" if op != "linear" else "relu")[1]
    for wrong in (other, tuple(residuals), None, X, [*residuals]):
        message = message_of(lambda wrong=wrong: FIRST[op].settled.backward(wrong, Y))
        assert message.startswith(f"{op}_backward: residuals must be {type(residuals).__name__}, got ")
        assert message.endswith(f"got {wrong.dtype} {wrong.shape}" if wrong is X else f"got {type(wrong).__name__}")


@every_rule
def test_predictions_and_inputs_are_floating_point(op):
    """The first argument of numbers; matrices may be complex, where there is no order of numbers in question."""
    arguments = good_arguments(op)
    i = next(i for i, a in enumerate(arguments) if is_floating(a))
    shape = arguments[i].shape
    on_matrices = op in {case.op for case in FAMILIES["linear_algebra"].CASES} - {"quadratic_program"}
    kind = "floating-point or complex" if on_matrices else "floating-point"
    for dtype in ("int32", "bool") if on_matrices else ("int32", "bool", "complex64"):
        arguments[i] = np.zeros(shape, dtype)
        message = message_of(lambda: FIRST[op].settled.forward(*arguments))
        assert message.startswith(f"{op}_forward: ")
        assert message.endswith(f"must have a {kind} dtype, got {dtype} {shape}")


FLAGS = [
    (op, option)
    for op in OPS
    for option, p in inspect.signature(FIRST[op].rule.forward).parameters.items()
    if isinstance(p.default, bool)
]


@pytest.mark.parametrize(("op", "option"), FLAGS)
def test_an_option_that_is_on_or_off(op, option):
    """ "none" is true in Python, and may be meant to be off."""
    rule = FIRST[op].rule.with_options(**FIRST[op].options | {option: "none"})
    assert message_of(rule.forward, *good_arguments(op)).endswith(f": {option} must be True or False, got 'none'")


@pytest.mark.slow
@every_rule
def test_an_empty_axis(op):
    """Every axis of one length without elements, the batch too: a result, or a refusal that says what is missing."""
    arguments = good_arguments(op)

    def both(*cut):
        Y, residuals = FIRST[op].settled.forward(*cut)
        return FIRST[op].settled.backward(residuals, Y)

    def without(length, a):
        if a is None or a.dtype == jnp.uint32 or jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return a  # omitted, or a random key
        return jax.ShapeDtypeStruct(tuple(n if n != length else 0 for n in a.shape), a.dtype)

    for length in {n for a in arguments if a is not None for n in a.shape}:
        with contextlib.suppress(hg.InputError):
            jax.eval_shape(both, *(without(length, a) for a in arguments))


# Labels outside the classes can't be seen at trace time: they give NaN, never a wrong number.


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_label_outside_the_classes(label_smoothing):
    """NaN in that example's loss and in its row of the cotangent; the other examples don't notice."""
    loss = hg.softmax_cross_entropy(label_smoothing)
    good, others = np.array([0, 1, 2, 1], np.int32), np.array([0, 1, 3])

    @jax.jit
    def both(labels):
        losses, residuals = loss.forward(X, labels)
        return losses, loss.backward(residuals, jnp.ones(4))

    expected, expected_dx = map(np.asarray, both(good))
    assert np.isfinite(expected).all()
    for bad in (3, 100, -1, -3, np.iinfo(np.int32).max, np.iinfo(np.int32).min):
        losses, dx = map(np.asarray, both(np.where(np.arange(4) == 2, np.int32(bad), good)))
        assert np.isnan(losses[2])
        assert np.isnan(dx[2]).all()
        assert (losses[others] == expected[others]).all()
        assert (dx[others] == expected_dx[others]).all()


def test_labels_of_every_integer_dtype():
    """The largest number of each dtype is no class, and doesn't become one by wrapping round. 300 classes and labels of
    uint8: class 255 is the largest that can be meant, and 256 + k is not k."""
    loss, dtypes = hg.softmax_cross_entropy(), ("uint8", "int8", "uint16", "int64", "uint32", "uint64")
    logits = RNG.standard_normal((2, 300))

    @jax.jit
    def run(logits):
        many = [loss.forward(X, np.array([0, 2, 1, np.iinfo(dtype).max], dtype))[0] for dtype in dtypes]
        wide = loss.forward(logits, np.array([3, 255], np.uint8))[0]
        expected = loss.forward(X, np.array([0, 2, 1, 0], np.int32))[0]
        return many, expected, wide, jax.nn.log_softmax(logits)

    many, expected, wide, log_probabilities = run(logits)
    for losses in map(np.asarray, many):
        assert (losses[:3] == np.asarray(expected)[:3]).all()
        assert np.isnan(losses[3])
    np.testing.assert_allclose(wide, -np.asarray(log_probabilities)[[0, 1], [3, 255]], rtol=1e-12)


def test_a_bad_label_among_tokens():
    """The example's loss is NaN; in the cotangent it is the token alone."""
    loss = hg.softmax_cross_entropy()

    @jax.jit
    def both(logits, labels):
        losses, residuals = loss.forward(logits, labels)
        return losses, loss.backward(residuals, jnp.ones(3))

    losses, dlogits = map(np.asarray, both(RNG.standard_normal((3, 2, 4)), np.array([[0, 1], [4, 2], [3, 3]])))
    assert np.isnan(losses).tolist() == [False, True, False]
    assert np.isnan(dlogits).all(2).tolist() == [[False, False], [True, False], [False, False]]
    assert np.isnan(dlogits).sum() == 4
