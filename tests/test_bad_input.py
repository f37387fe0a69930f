"""What can't be used is refused at trace time, in one sentence: function, argument, what was expected, what came."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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

value_and_grad = hg.value_and_grad(MODEL, LOSS)


class Bad(NamedTuple):
    """A call and the sentence that refuses it: function and argument, what was expected, what came, "…" between.

    Attributes:
      traced: whether the arguments can be traced, so that shapes alone are enough.
    """

    name: str
    call: Any
    arguments: tuple[Any, ...]
    said: str
    traced: bool = True


def at_model_level(name, arguments, argument, expected, got, traced=True):
    """The four functions that take (params, x, target, ...)."""
    functions = {
        "objective": hg.objective(MODEL, LOSS),
        "value_and_grad": value_and_grad,
        "grad": hg.grad(MODEL, LOSS),
        "value_and_factors": hg.value_and_factors(MODEL, LOSS),
    }
    if len(arguments) > 3:
        del functions["value_and_factors"]
    return [
        Bad(f"{function}: {name}", call, arguments, f"{function}: {argument} … {expected} … {got}", traced)
        for function, call in functions.items()
    ]


LINEAR = rules.linear_forward
ROWS = [
    # A wrong feature width.
    Bad("width", LINEAR, (WIDE, W), "linear_forward: X … (4, 3) … float64 (4, 5)"),
    Bad("width of x", value_and_grad, (PARAMS, WIDE, TARGET), "in layer 0: linear_forward: X … (4, 3) … (4, 5)"),
    Bad(
        "width in the middle",
        value_and_grad,
        ((PARAMS[0], (), hg.LinearParams(W, B)), X, TARGET),
        "in layer 2: linear_forward: X … (4, 3) to meet W (3, 2) … float64 (4, 6)",
    ),
    Bad(
        "width in a nested keyword chain",
        hg.value_and_grad(NAMED, LOSS),
        (NAMED_PARAMS, WIDE, TARGET),
        "in layer encoder.first: linear_forward: X … (4, 3) … float64 (4, 5)",
    ),
    Bad(
        "width of the head of a keyword chain",
        hg.custom_vjp(NAMED),
        ({**NAMED_PARAMS, "head": hg.LinearParams(W, B)}, X),
        "in layer head: linear_forward: X … (4, 3) to meet W (3, 2) … float64 (4, 6)",
    ),
    Bad(
        "width that init was promised",
        hg.mlp((5, 2), hg.relu()).init,
        (KEY, X),
        "in layer 0: linear: x … 5 features … float64 (4, 3)",
    ),
    # Parameters of a wrong shape.
    Bad("bias of length 1", LINEAR, (X, W, np.ones(1)), "linear_forward: b … (2,) … float64 (1,)"),
    Bad("bias as a row", LINEAR, (X, W, np.ones((1, 2))), "linear_forward: b … (2,) … float64 (1, 2)"),
    Bad("bias as a scalar", LINEAR, (X, W, np.ones(())), "linear_forward: b … (2,) … float64 ()"),
    Bad("W of three axes", LINEAR, (X, np.ones((1, 3, 2))), "linear_forward: W … (n_in, n_out) … (1, 3, 2)"),
    Bad("W a vector", LINEAR, (X, np.ones(3)), "linear_forward: W … (n_in, n_out) … float64 (3,)"),
    Bad("X a vector", LINEAR, (np.ones(3), W), "linear_forward: X … (batch, ..., features) … float64 (3,)"),
    # Integers, booleans, complex numbers.
    Bad("integer X", LINEAR, (X.astype(int), W), "linear_forward: X … floating-point … int64 (4, 3)"),
    Bad("boolean X", LINEAR, (X > 0, W), "linear_forward: X … floating-point … bool (4, 3)"),
    Bad("complex X", LINEAR, (X + 1j, W), "linear_forward: X … floating-point … complex128 (4, 3)"),
    Bad("integer W", LINEAR, (X, W.astype(int)), "linear_forward: W … floating-point … int64 (3, 2)"),
    Bad("integer b", LINEAR, (X, W, B.astype(int)), "linear_forward: b … floating-point … int64 (2,)"),
    Bad(
        "integer x into a model",
        value_and_grad,
        (PARAMS, X.astype(np.uint8), TARGET),
        "in layer 0: linear_forward: X … floating-point … uint8 (4, 3)",
    ),
    Bad("integer x into init", MODEL.init, (KEY, X.astype(int)), "in layer 0: linear: x … floating … int64 (4, 3)"),
    # Batches.
    *at_model_level("another batch", (PARAMS, X, TARGET[:3]), "x and target", "same batch", "4 and 3 examples"),
    *at_model_level("a target for one", (PARAMS, X, TARGET[:1]), "x and target", "same batch", "4 and 1 examples"),
    *at_model_level("an empty batch", (PARAMS, X[:0], TARGET[:0]), "x ", "at least one example", "an empty batch"),
    *at_model_level("no batch axis", (PARAMS, np.ones(()), TARGET), "x ", "batch axis", "float64 ()"),
    *at_model_level("weights of another batch", (PARAMS, X, TARGET, B), "weights ", "(4,)", "float64 (2,)"),
    *at_model_level("one weight", (PARAMS, X, TARGET, np.ones(1)), "weights ", "(4,)", "float64 (1,)"),
    *at_model_level("weights as a column", (PARAMS, X, TARGET, np.ones((4, 1))), "weights ", "(4,)", "float64 (4, 1)"),
    *at_model_level("a weight", (PARAMS, X, TARGET, 1.0), "weights ", "(4,)", "float", traced=False),
    *at_model_level("a list of weights", (PARAMS, X, TARGET, [1.0] * 4), "weights ", "(4,)", "list", traced=False),
    *at_model_level("no x", (PARAMS, None, TARGET), "x ", "", "None"),
    *at_model_level("no target", (PARAMS, X, None), "target ", "", "None"),
    *at_model_level("a list as x", (PARAMS, [[1.0]], TARGET), "x ", "", "float", traced=False),
    Bad(
        "weights of another batch at the end",
        lambda weights: hg.materialize(hg.value_and_factors(MODEL, LOSS)(PARAMS, X, TARGET)[1], weights),
        (np.ones(3),),
        "Outer.sum: weights … (4,) … float64 (3,)",
    ),
    # Targets.
    *[
        Bad(f"{op}: {name}", getattr(rules, op).forward, (X, Y), f"{op}_forward: the target Y … (4, 3) … {got}")
        for op in (
            "squared_error",
            "l2_loss",
            "absolute_error",
            "huber_loss",
            "sigmoid_cross_entropy",
            "binary_cross_entropy",
        )
        for name, Y, got in (
            ("target of one column", X[:, :1], "float64 (4, 1)"),
            ("target of rank 1", X[:, 0], "float64 (4,)"),
            ("target of rank 3", X[:, None], "float64 (4, 1, 3)"),
            ("a scalar target", np.ones(()), "float64 ()"),
            ("no target", None, "NoneType"),
        )
    ],
    *[
        Bad(
            f"cross-entropy: {name}",
            rules.softmax_cross_entropy_forward,
            (X, Y),
            f"softmax_cross_entropy_forward: the target Y … {expected} … {got}",
        )
        for name, Y, expected, got in (
            ("labels as a column", LABELS[:, None], "(4,) (one label for each row of logits)", "int64 (4, 1)"),
            ("labels of the logits' shape", X.astype(int), "(4,)", "int64 (4, 3)"),
            ("labels of another batch", LABELS[:3], "(4,)", "int64 (3,)"),
            ("labels as floats", LABELS.astype(float), "(4, 3) (one probability for each logit)", "float64 (4,)"),
            ("distributions over other classes", WIDE, "(4, 3)", "float64 (4, 5)"),
            ("booleans", X > 0, "", "bool (4, 3)"),
            ("no target", None, "", "NoneType"),
        )
    ],
    Bad(
        "logits of rank 1",
        CROSS_ENTROPY.forward,
        (B, LABELS[:2]),
        "softmax_cross_entropy_forward: the logits Z … (batch, … (2,)",
    ),
    Bad("a complex target", LOSS.forward, (X, X + 1j), "l2_loss_forward: the target Y … complex128 (4, 3)"),
    Bad(
        "target of another rank than the model's prediction",
        value_and_grad,
        (PARAMS, X, LABELS),
        "l2_loss_forward: the target Y … (4, 2) like the prediction A … int64 (4,)",
    ),
    Bad(
        "labels for another model",
        hg.objective(MODEL, CROSS_ENTROPY),
        (PARAMS, X, LABELS[:, None]),
        "softmax_cross_entropy_forward: the target Y … (4,) … int64 (4, 1)",
    ),
    # Options.
    *[
        Bad(f"{option}={value}", call, (), f"{function}: {option} … {expected} … {value!s}")
        for value, option, function, expected, call in (
            *[
                (
                    value,
                    "label_smoothing",
                    "softmax_cross_entropy_forward",
                    "in [0, 1)",
                    lambda value=value: hg.softmax_cross_entropy(value).forward(X, LABELS),
                )
                for value in (1, 1.5, -0.1, float("nan"))
            ],
            *[
                (
                    value,
                    "delta",
                    "huber_loss_forward",
                    "positive",
                    lambda value=value: hg.huber_loss(value).forward(X, X),
                )
                for value in (0, -1.0, float("nan"))
            ],
            *[
                (
                    value,
                    "negative_slope",
                    "leaky_relu_forward",
                    "positive",
                    lambda value=value: hg.leaky_relu(value).forward((), X),
                )
                for value in (-1, 0.0)
            ],
            *[
                (value, "alpha", "elu_forward", "positive", lambda value=value: hg.elu(value).forward((), X))
                for value in (-1.0, 0)
            ],
        )
    ],
    # Params of another model.
    Bad(
        "params of a longer model",
        value_and_grad,
        ((*PARAMS, ()), X, TARGET),
        "chain: params … a tuple of 3 … a tuple of 4",
    ),
    Bad(
        "params of a named model", value_and_grad, (NAMED_PARAMS, X, TARGET), "chain: params … a tuple of 3 … a dict of"
    ),
    Bad(
        "positional params",
        hg.grad(NAMED, LOSS),
        (PARAMS, X, TARGET),
        "chain: params … a dict of 'encoder', 'head' … a tuple of 3",
    ),
    Bad("params of one layer", value_and_grad, (PARAMS[0], X, TARGET), "chain: params … a tuple of 3 … LinearParams"),
    Bad("no params", value_and_grad, (None, X, TARGET), "chain: params … a tuple of 3 … NoneType"),
    Bad(
        "params in another order",
        value_and_grad,
        (PARAMS[::-1][1:] + PARAMS[:1], X, TARGET),
        "in layer 0: linear: params … LinearParams … tuple",
    ),
    Bad(
        "params where there are none",
        value_and_grad,
        ((PARAMS[0], PARAMS[0], PARAMS[2]), X, TARGET),
        "in layer 1: relu_forward: params … () … LinearParams",
    ),
    Bad(
        "no bias where there is one",
        value_and_grad,
        ((hg.LinearParams(PARAMS[0].W), *PARAMS[1:]), X, TARGET),
        "in layer 0: linear: params.b … an array … NoneType",
    ),
    Bad(
        "a bias where there is none",
        hg.custom_vjp(hg.linear(2, bias=False)),
        (hg.LinearParams(W, B), X),
        "linear: params.b … None … float64 (2,)",
    ),
    Bad(
        "params of another repeat",
        hg.custom_vjp(hg.repeat(hg.linear(3), 4)),
        (params_of(hg.repeat(hg.linear(3), 2)), X),
        "repeat: params … stacked 4 times … (2, 3, 3)",
    ),
    # Not arrays.
    Bad("a list as X", LINEAR, ([[1.0, 2.0, 3.0]], W), "linear_forward: X … an array … list", traced=False),
    Bad("a list as W", LINEAR, (X, [[1.0]]), "linear_forward: W … an array … list", traced=False),
    Bad("a list as b", LINEAR, (X, W, [1.0, 1.0]), "linear_forward: b … an array … list", traced=False),
    Bad("None as X", LINEAR, (None, W), "linear_forward: X … an array … NoneType"),
    Bad("None as W", LINEAR, (X, None), "linear_forward: W … an array … NoneType"),
    Bad(
        "a float as the prediction",
        LOSS.forward,
        (1.0, X),
        "l2_loss_forward: the prediction A … an array … float",
        traced=False,
    ),
    Bad(
        "a list as the target",
        LOSS.forward,
        (X, [1.0]),
        "l2_loss_forward: the target Y … an array … list",
        traced=False,
    ),
    Bad("None into an activation", hg.relu().forward, ((), None), "relu_forward: X … an array … NoneType"),
    # A chain of nothing.
    Bad("a chain of nothing", hg.chain, (), "chain: expected at least one layer … none"),
    Bad(
        "a layer not made",
        hg.chain,
        (hg.relu,),
        "chain: expected a Layer … as `relu()` makes one … function",
        traced=False,
    ),
    Bad("an mlp of one size", lambda: hg.mlp((3,), hg.relu()), (), "mlp: sizes … at least … (3,)"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_refused(row):
    """At trace time, in one sentence (JAX adds a note of its own behind it): nothing has been computed by then."""
    with pytest.raises(hg.InputError) as raised:
        jax.eval_shape(row.call, *row.arguments) if row.traced else row.call(*row.arguments)
    sentence = str(raised.value).split("\n")[0]
    before, separator, got = sentence.rpartition("got ")
    first, *expected, came = row.said.split(" … ")
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
