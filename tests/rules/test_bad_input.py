"""What every rule refuses, and what labels outside the classes do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import OPS, first

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 3)))


def rule_arguments(op):
    """Good arguments of any rule, float64: its first row's."""
    drawn = first(op).draw(np.random.default_rng(0))
    return tuple(a if a is None or isinstance(a, jax.Array) else jnp.asarray(a) for a in drawn)


@functools.cache
def run_forward(op):
    """Output and residuals; of zeros, since an error looks at shapes and dtypes alone."""
    forward = functools.partial(getattr(rules, op).forward, **first(op).options)
    return jax.tree.map(zeros, jax.eval_shape(forward, *rule_arguments(op)))


def zeros(a):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.asarray(np.zeros(a.shape, a.dtype))


def run_backward(op, residuals, dY):
    return getattr(rules, op).backward(residuals, dY, **first(op).of_values)


every_rule = pytest.mark.parametrize("op", [pytest.param(op, marks=pytest.mark.xdist_group(op)) for op in OPS])


@every_rule
@pytest.mark.parametrize("change", ["shape", "broadcasts", "rank", "dtype", "integer", "list", "None"])
def test_a_cotangent_of_the_wrong_kind(op, change):
    """The only one, or the first of several."""
    Y, residuals = run_forward(op)
    (y, *others), structure = jax.tree.flatten(Y)
    dy = {
        "shape": jnp.ones((*y.shape[:-1], y.shape[-1] + 1) if y.ndim else (2,)),
        "broadcasts": jnp.ones((*y.shape[:-1], 2 if y.shape[-1:] == (1,) else 1) if y.ndim else (1,)),
        "rank": jnp.ones((1, *y.shape)),
        "dtype": jnp.ones(y.shape, jnp.float32),
        "integer": jnp.ones(y.shape, int),
        "list": [1.0],
        "None": None,
    }[change]
    got = {"list": "list", "None": "NoneType"}.get(change) or f"{dy.dtype} {dy.shape}"
    dY = structure.unflatten([dy, *map(jnp.ones_like, others)])
    calls = [lambda: run_backward(op, residuals, dY)]
    if change != "list":
        calls.append(lambda: jax.eval_shape(functools.partial(run_backward, op), residuals, dY))
    for call in calls:
        with pytest.raises(hg.InputError) as raised:
            call()
        function, _, sentence = str(raised.value).split("\n")[0].partition(": ")
        assert function == f"{op}_backward"
        assert sentence.startswith("d")
        assert f" must be the cotangent of {sentence[1]}, float64 {y.shape}, got {got}" in sentence


@every_rule
def test_residuals_of_another_rule(op):
    """Another rule's, the bare arrays in a tuple, and none at all; the last two as no-one's."""
    Y, residuals = run_forward(op)
    other = run_forward("linear" if op != "linear" else "relu")[1]
    X = jnp.ones((4, 3))
    for wrong in (other, tuple(residuals), None, X, [*residuals]):
        with pytest.raises(hg.InputError) as raised:
            run_backward(op, wrong, jax.tree.map(jnp.ones_like, Y))
        message = str(raised.value)
        assert message.startswith(f"{op}_backward: residuals must be {type(residuals).__name__}, got ")
        got = f"{wrong.dtype} {wrong.shape}" if wrong is X else type(wrong).__name__
        assert message.endswith(f"got {got}")


@every_rule
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_predictions_and_inputs_are_floating_point(op, dtype):
    """The first argument of numbers."""
    arguments = list(rule_arguments(op))
    i = next(i for i, a in enumerate(arguments) if a is not None and jnp.issubdtype(a.dtype, jnp.floating))
    arguments[i] = arguments[i].astype(dtype)
    with pytest.raises(hg.InputError) as raised:
        getattr(rules, op).forward(*arguments, **first(op).options)
    message = str(raised.value)
    assert message.startswith(f"{op}_forward: ")
    assert message.endswith(f"must have a floating-point dtype, got {dtype} {arguments[i].shape}")


# Labels outside the classes can't be seen at trace time: they give NaN, never a wrong number.


@pytest.mark.parametrize("bad", [3, 100, -1, -3, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_label_outside_the_classes(bad, label_smoothing):
    """NaN in that example's loss and in its row of the cotangent; the other examples don't notice."""
    loss = hg.softmax_cross_entropy(label_smoothing)
    good = jnp.array([0, 1, 2, 1], np.int32)

    @jax.jit
    def both(labels):
        losses, residuals = loss.forward(X, labels)
        return losses, loss.backward(residuals, jnp.ones(4))

    (losses, dx), (expected, expected_dx) = both(good.at[2].set(bad)), both(good)
    others = np.array([0, 1, 3])
    assert jnp.isnan(losses[2])
    assert jnp.isnan(dx[2]).all()
    assert (losses[others] == expected[others]).all()
    assert (dx[others] == expected_dx[others]).all()
    assert jnp.isfinite(expected).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "uint32", "uint64"])
def test_labels_of_every_integer_dtype(dtype):
    """The largest number of each dtype is no class, and doesn't become one by wrapping round."""
    top = np.iinfo(dtype).max
    losses, _ = hg.softmax_cross_entropy().forward(X, np.array([0, 2, 1, top], dtype))
    expected, _ = hg.softmax_cross_entropy().forward(X, np.array([0, 2, 1, 0], np.int32))
    assert (losses[:3] == expected[:3]).all()
    assert jnp.isnan(losses[3])


def test_more_classes_than_the_labels_dtype_can_name():
    """300 classes and labels of uint8: class 255 is the largest that can be meant, and 256 + k is not k."""
    logits = jnp.asarray(RNG.standard_normal((2, 300)))
    losses, _ = hg.softmax_cross_entropy().forward(logits, np.array([3, 255], np.uint8))
    np.testing.assert_allclose(losses, -jax.nn.log_softmax(logits)[jnp.arange(2), jnp.array([3, 255])], rtol=1e-12)


def test_a_bad_label_among_tokens():
    """The example's loss is NaN; in the cotangent it is the token alone."""
    logits = jnp.asarray(RNG.standard_normal((3, 2, 4)))
    losses, residuals = hg.softmax_cross_entropy().forward(logits, jnp.array([[0, 1], [4, 2], [3, 3]]))
    dlogits = hg.softmax_cross_entropy().backward(residuals, jnp.ones(3))
    assert jnp.isnan(losses).tolist() == [False, True, False]
    assert jnp.isnan(dlogits).all(2).tolist() == [[False, False], [True, False], [False, False]]
    assert jnp.isnan(dlogits).sum() == 4
