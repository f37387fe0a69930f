"""What every rule refuses, and what labels outside the classes do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, WIDE = jnp.asarray(RNG.standard_normal((4, 3))), jnp.asarray(RNG.standard_normal((4, 5)))
W, B = jnp.ones((3, 2)), jnp.ones(2)
TARGET, LABELS = jnp.zeros((4, 2)), jnp.array([0, 1, 1, 0])


OPS = sorted(name.removesuffix("_forward") for name in rules.__all__ if name.endswith("_forward"))
NUMBER_LOSSES = [
    "absolute_error",
    "binary_cross_entropy",
    "huber_loss",
    "l2_loss",
    "sigmoid_cross_entropy",
    "squared_error",
]


def rule_arguments(op):
    """Good arguments of any rule, float64."""
    if op == "linear":
        return X, W, B
    if op == "softmax_cross_entropy":
        return X, LABELS
    return (jax.nn.sigmoid(X), jax.nn.sigmoid(-X)) if op in NUMBER_LOSSES else (X,)


def run_forward(op):
    return getattr(rules, f"{op}_forward")(*rule_arguments(op))


every_rule = pytest.mark.parametrize("op", OPS)


@every_rule
@pytest.mark.parametrize("change", ["shape", "broadcasts", "rank", "dtype", "integer", "list", "None"])
def test_a_cotangent_of_the_wrong_kind(op, change):
    Y, residuals = run_forward(op)
    dY = {
        "shape": jnp.ones((*Y.shape[:-1], Y.shape[-1] + 1)),
        "broadcasts": jnp.ones((*Y.shape[:-1], 1)),
        "rank": jnp.ones((1, *Y.shape)),
        "dtype": jnp.ones(Y.shape, jnp.float32),
        "integer": jnp.ones(Y.shape, int),
        "list": [1.0],
        "None": None,
    }[change]
    got = {"list": "list", "None": "NoneType"}.get(change) or f"{dY.dtype} {dY.shape}"
    backward = getattr(rules, f"{op}_backward")
    calls = [lambda: backward(residuals, dY)]
    if change != "list":
        calls.append(lambda: jax.eval_shape(backward, residuals, dY))
    for call in calls:
        with pytest.raises(hg.InputError) as raised:
            call()
        function, _, sentence = str(raised.value).split("\n")[0].partition(": ")
        assert function == f"{op}_backward"
        assert sentence.startswith("d")
        assert f" must be the cotangent of {sentence[1]}, float64 {Y.shape}, got {got}" in sentence


@every_rule
def test_residuals_of_another_rule(op):
    """Every other rule's, the bare arrays in a tuple, and none at all; the last two as no-one's."""
    Y, residuals = run_forward(op)
    others = [run_forward(other)[1] for other in OPS if other != op]
    for wrong in (*others, tuple(residuals), None, X, [*residuals]):
        with pytest.raises(hg.InputError) as raised:
            getattr(rules, f"{op}_backward")(wrong, jnp.ones_like(Y))
        message = str(raised.value)
        assert message.startswith(f"{op}_backward: residuals must be {type(residuals).__name__}, got ")
        got = f"{wrong.dtype} {wrong.shape}" if wrong is X else type(wrong).__name__
        assert message.endswith(f"got {got}")


@every_rule
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_predictions_and_inputs_are_floating_point(op, dtype):
    first, *others = rule_arguments(op)
    with pytest.raises(hg.InputError) as raised:
        getattr(rules, f"{op}_forward")(first.astype(dtype), *others)
    message = str(raised.value)
    assert message.startswith(f"{op}_forward: ")
    assert message.endswith(f"must have a floating-point dtype, got {dtype} (4, 3)")


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
