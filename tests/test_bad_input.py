"""What can't be used is refused at trace time, in one sentence: function, argument, what was expected, what came."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused

import handgrad as hg
from handgrad import rules

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, WIDE = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 5))
W, B = np.ones((3, 2)), np.ones(2)
TARGET, LABELS = np.zeros((4, 2)), np.array([0, 1, 1, 0])


def params_of(model):
    return jax.tree.map(lambda p: np.ones(p.shape), jax.eval_shape(model.init, KEY, X))


MODEL = hg.chain(hg.linear(6), hg.relu(), hg.linear(2))
PARAMS = params_of(MODEL)
NAMED = hg.chain(encoder=hg.chain(first=hg.linear(6), activation=hg.relu()), head=hg.linear(2))
NAMED_PARAMS = params_of(NAMED)
LOSS = hg.l2_loss()
CROSS_ENTROPY = hg.softmax_cross_entropy()

FUNCTIONS = {f.__name__: f(MODEL, LOSS) for f in (hg.objective, hg.value_and_grad, hg.grad)}
VALUE_AND_GRAD = FUNCTIONS["value_and_grad"]
LINEAR, CROSS_ENTROPIES = rules.linear_forward, ("sigmoid_cross_entropy", "binary_cross_entropy")
GOT = {
    "float64 (4, 1)": X[:, :1],
    "float64 (4,)": X[:, 0],
    "float64 (4, 1, 3)": X[:, None],
    "float64 ()": np.ones(()),
    "NoneType": None,
}


def at_model_level(said, *arguments):
    """The four functions that take (params, x, target, ...)."""
    without_weights = {} if len(arguments) > 3 else {"value_and_factors": hg.value_and_factors(MODEL, LOSS)}
    return {f"{name}: {said}": partial(call, *arguments) for name, call in (FUNCTIONS | without_weights).items()}


def target(loss, said, Y):
    return {f"{loss}_forward: the target Y … {said}": partial(getattr(rules, loss).forward, X, Y)}


def option(said, make, *values):
    """What a layer or loss made with this option says of it when it is run."""

    def run(value):
        made = make(value)
        arguments = ((), X) if isinstance(made, hg.Layer) else (X, LABELS if make is hg.softmax_cross_entropy else X)
        return made.forward(*arguments)

    return {f"{said} … {value}": partial(run, value) for value in values}


# Function and argument, what was expected, what came, "…" between: the call and its arguments.
ROWS = {
    # A wrong feature width.
    "linear_forward: X … (4, 3) … float64 (4, 5)": partial(LINEAR, WIDE, W),
    "in layer 0: linear_forward: X … (4, 3) … (4, 5)": partial(VALUE_AND_GRAD, PARAMS, WIDE, TARGET),
    "in layer 2: linear_forward: X … (4, 3) to meet W (3, 2) … float64 (4, 6)": partial(
        VALUE_AND_GRAD, (PARAMS[0], (), hg.LinearParams(W, B)), X, TARGET
    ),
    "in layer encoder.first: linear_forward: X … (4, 3) … float64 (4, 5)": partial(
        hg.value_and_grad(NAMED, LOSS), NAMED_PARAMS, WIDE, TARGET
    ),
    "in layer head: linear_forward: X … (4, 3) to meet W (3, 2) … float64 (4, 6)": partial(
        hg.custom_vjp(NAMED), {**NAMED_PARAMS, "head": hg.LinearParams(W, B)}, X
    ),
    "in layer 0: linear: x … 5 features … float64 (4, 3)": partial(hg.mlp((5, 2), hg.relu()).init, KEY, X),
    # Parameters of a wrong shape.
    "linear_forward: b … (2,) … float64 (1,)": partial(LINEAR, X, W, np.ones(1)),
    "linear_forward: b … (2,) … float64 (1, 2)": partial(LINEAR, X, W, np.ones((1, 2))),
    "linear_forward: b … (2,) … float64 ()": partial(LINEAR, X, W, np.ones(())),
    "linear_forward: W … (n_in, n_out) … (1, 3, 2)": partial(LINEAR, X, np.ones((1, 3, 2))),
    "linear_forward: W … (n_in, n_out) … float64 (3,)": partial(LINEAR, X, np.ones(3)),
    "linear_forward: X … (batch, ..., features) … float64 (3,)": partial(LINEAR, np.ones(3), W),
    # Integers, booleans, complex numbers.
    "linear_forward: X … floating-point … int64 (4, 3)": partial(LINEAR, X.astype(int), W),
    "linear_forward: X … floating-point … bool (4, 3)": partial(LINEAR, X > 0, W),
    "linear_forward: X … floating-point … complex128 (4, 3)": partial(LINEAR, X + 1j, W),
    "linear_forward: W … floating-point … int64 (3, 2)": partial(LINEAR, X, W.astype(int)),
    "linear_forward: b … floating-point … int64 (2,)": partial(LINEAR, X, W, B.astype(int)),
    "in layer 0: linear_forward: X … floating-point … uint8 (4, 3)": partial(
        VALUE_AND_GRAD, PARAMS, X.astype(np.uint8), TARGET
    ),
    "in layer 0: linear: x … floating … int64 (4, 3)": partial(MODEL.init, KEY, X.astype(int)),
    # Batches.
    **at_model_level("x and target … same batch … 4 and 3 examples", PARAMS, X, TARGET[:3]),
    **at_model_level("x and target … same batch … 4 and 1 examples", PARAMS, X, TARGET[:1]),
    **at_model_level("x must … at least one example … an empty batch", PARAMS, X[:0], TARGET[:0]),
    **at_model_level("x must … batch axis … float64 ()", PARAMS, np.ones(()), TARGET),
    **at_model_level("weights must … (4,) … float64 (2,)", PARAMS, X, TARGET, B),
    **at_model_level("weights must … (4,) … float64 (1,)", PARAMS, X, TARGET, np.ones(1)),
    **at_model_level("weights must … (4,) … float64 (4, 1)", PARAMS, X, TARGET, np.ones((4, 1))),
    **at_model_level("weights must … (4,) … float", PARAMS, X, TARGET, 1.0),
    **at_model_level("weights must … (4,) … list", PARAMS, X, TARGET, [1.0] * 4),
    **at_model_level("x must … None", PARAMS, None, TARGET),
    **at_model_level("target must … None", PARAMS, X, None),
    **at_model_level("x must … float", PARAMS, [[1.0]], TARGET),
    "Outer.sum: weights … (4,) … float64 (3,)": partial(
        lambda weights: hg.materialize(hg.value_and_factors(MODEL, LOSS)(PARAMS, X, TARGET)[1], weights), np.ones(3)
    ),
    # Targets: of one column, of rank 1 and 3, a scalar, none; labels.
    **{
        said: row
        for loss in ("squared_error", "l2_loss", "absolute_error", "huber_loss", *CROSS_ENTROPIES)
        for got, Y in GOT.items()
        for said, row in target(loss, f"(4, 3) … {got}", Y).items()
    },
    **target("softmax_cross_entropy", "(4,) (one label for each row of logits) … int64 (4, 1)", LABELS[:, None]),
    **target("softmax_cross_entropy", "(4,) … int64 (4, 3)", X.astype(int)),
    **target("softmax_cross_entropy", "(4,) … int64 (3,)", LABELS[:3]),
    **target("softmax_cross_entropy", "(4, 3) (one probability for each logit) … float64 (4,)", LABELS.astype(float)),
    **target("softmax_cross_entropy", "(4, 3) … float64 (4, 5)", WIDE),
    **target("softmax_cross_entropy", "bool (4, 3)", X > 0),
    **target("softmax_cross_entropy", "NoneType", None),
    "softmax_cross_entropy_forward: the logits Z … (batch, … (2,)": partial(CROSS_ENTROPY.forward, B, LABELS[:2]),
    **target("l2_loss", "complex128 (4, 3)", X + 1j),
    "l2_loss_forward: the target Y … (4, 2) like the prediction A … int64 (4,)": partial(
        VALUE_AND_GRAD, PARAMS, X, LABELS
    ),
    "softmax_cross_entropy_forward: the target Y … (4,) … int64 (4, 1)": partial(
        hg.objective(MODEL, CROSS_ENTROPY), PARAMS, X, LABELS[:, None]
    ),
    # Options.
    **option(
        "softmax_cross_entropy_forward: label_smoothing … in [0, 1)", hg.softmax_cross_entropy, 1, 1.5, -0.1, np.nan
    ),
    **option("huber_loss_forward: delta … positive", hg.huber_loss, 0, -1.0, np.nan),
    **option("leaky_relu_forward: negative_slope … positive", hg.leaky_relu, -1, 0.0),
    **option("elu_forward: alpha … positive", hg.elu, -1.0, 0),
    # Params of another model.
    "chain: params … a tuple of 3 … a tuple of 4": partial(VALUE_AND_GRAD, (*PARAMS, ()), X, TARGET),
    "chain: params … a tuple of 3 … a dict of": partial(VALUE_AND_GRAD, NAMED_PARAMS, X, TARGET),
    "chain: params … a dict of 'encoder', 'head' … a tuple of 3": partial(hg.grad(NAMED, LOSS), PARAMS, X, TARGET),
    "chain: params … a tuple of 3 … LinearParams": partial(VALUE_AND_GRAD, PARAMS[0], X, TARGET),
    "chain: params … a tuple of 3 … NoneType": partial(VALUE_AND_GRAD, None, X, TARGET),
    "in layer 0: linear: params … LinearParams … tuple": partial(
        VALUE_AND_GRAD, PARAMS[::-1][1:] + PARAMS[:1], X, TARGET
    ),
    "in layer 1: relu_forward: params … () … LinearParams": partial(
        VALUE_AND_GRAD, (PARAMS[0], PARAMS[0], PARAMS[2]), X, TARGET
    ),
    "in layer 0: linear: params.b … an array … NoneType": partial(
        VALUE_AND_GRAD, (hg.LinearParams(PARAMS[0].W), *PARAMS[1:]), X, TARGET
    ),
    "linear: params.b … None … float64 (2,)": partial(
        hg.custom_vjp(hg.linear(2, bias=False)), hg.LinearParams(W, B), X
    ),
    "repeat: params … stacked 4 times … (2, 3, 3)": partial(
        hg.custom_vjp(hg.repeat(hg.linear(3), 4)), params_of(hg.repeat(hg.linear(3), 2)), X
    ),
    # Not arrays.
    "linear_forward: X … an array … list": partial(LINEAR, [[1.0, 2.0, 3.0]], W),
    "linear_forward: W … an array … list": partial(LINEAR, X, [[1.0]]),
    "linear_forward: b … an array … list": partial(LINEAR, X, W, [1.0, 1.0]),
    "linear_forward: X … an array … NoneType": partial(LINEAR, None, W),
    "linear_forward: W … an array … NoneType": partial(LINEAR, X, None),
    "l2_loss_forward: the prediction A … an array … float": partial(LOSS.forward, 1.0, X),
    "l2_loss_forward: the target Y … an array … list": partial(LOSS.forward, X, [1.0]),
    "relu_forward: X … an array … NoneType": partial(hg.relu().forward, (), None),
    # A chain of nothing, a layer not made, an mlp of one size.
    "chain: expected at least one layer … none": partial(hg.chain),
    "chain: expected a Layer … as `relu()` makes one … function": partial(hg.chain, hg.relu),
    "mlp: sizes … at least … (3,)": partial(lambda: hg.mlp((3,), hg.relu())),
}


@pytest.mark.parametrize("said", ROWS)
def test_refused(said):
    """At trace time, in one sentence (JAX adds a note of its own behind it): nothing has been computed by then."""
    call = ROWS[said]
    traced = all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(call.args))
    with pytest.raises(hg.InputError) as raised:
        jax.eval_shape(call.func, *call.args) if traced else call()
    sentence = str(raised.value).split("\n")[0]
    before, separator, got = sentence.rpartition("got ")
    first, *expected, came = said.split(" … ")
    assert separator
    assert before.startswith(first)
    assert all(part in before[len(first) :] for part in expected)
    assert came in got


def test_an_input_error_is_a_value_error():
    assert issubclass(hg.InputError, ValueError)


def test_a_bad_label_reaches_the_value():
    """The mean is NaN, and so is the gradient: training can't go on as if nothing had been."""
    value, grads = hg.value_and_grad(MODEL, CROSS_ENTROPY)(PARAMS, X, np.array([0, 1, 2, 0]))
    assert jnp.isnan(value)
    assert all(jnp.isnan(leaf).any() for leaf in jax.tree.leaves(grads))
    losses, _ = hg.value_and_factors(MODEL, CROSS_ENTROPY)(PARAMS, X, np.array([0, 1, 2, 0]))
    assert jnp.isnan(losses).tolist() == [False, False, True, False]


def test_what_newcomers_try():
    """Each sentence says what to do instead."""
    Q, K = np.ones((2, 6, 4, 8)), np.ones((2, 5, 3, 8))
    sequences = hg.Sequences(np.ones((2, 3, 4)), np.array([3, 1]))
    assert_refused(
        {
            "value_and_grad: x must have a batch axis in front, got float; a list .* np.asarray .*": lambda: (
                VALUE_AND_GRAD(PARAMS, X.tolist(), TARGET)
            ),
            r"softmax_cross_entropy_forward: the target Y .* or be integers of shape \(4,\), got .*": lambda: (
                CROSS_ENTROPY.forward(X, np.ones(4))
            ),
            r"linear: x must be an array, got Sequences: each_step\(linear\(...\)\) takes them": lambda: hg.linear(
                2
            ).init(KEY, sequences),
            "custom_vjp: expected a Layer, got a Rule: call gelu itself, .*": lambda: hg.custom_vjp(rules.gelu),
            "attention_forward: K must have a number of heads that divides Q's 4, .*": lambda: rules.attention(Q, K, Q),
            r"init: expected a key and x, .* got float64 \(4, 3\) alone": lambda: MODEL.init(X),
        }
    )
    with pytest.raises(TypeError, match=r"^layer_norm\(\): got an unexpected keyword argument 'epsilon'"):
        rules.layer_norm(X, np.ones(3), np.ones(3), epsilon=1e-6)
