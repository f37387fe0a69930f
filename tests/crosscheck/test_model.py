"""Whole networks: the first wrong layer is named, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.crosscheck import check_model
from handgrad.crosscheck.model import innermost_layers

QUICK = {"contracts": False, "transforms": (), "differences": False}
X = np.random.default_rng(0).standard_normal((5, 4))
TARGET = np.random.default_rng(1).standard_normal((5, 3))
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 1.5])


def spoiled(layer, size=1 + 1e-8):
    """A layer whose dx is off, and nothing else."""

    def backward(residuals, dy):
        dx, dparams = layer.backward(residuals, dy)
        return dx * size, dparams

    return hg.Layer(layer.init, layer.forward, backward)


def check(model, loss=None, **settings):
    params = model.init(jax.random.key(0), X)
    return check_model(model, loss or hg.squared_error(), params, X, TARGET, **(QUICK | settings))


def good():
    return hg.chain(hg.linear(4), hg.tanh(), hg.residual(hg.linear(4)), hg.repeat(hg.linear(4), 3), hg.linear(3))


def test_a_right_network():
    report = check(good(), weights=WEIGHTS, differences=True, contracts=True, transforms=("jit",))
    assert report.ok, report
    assert report.control is None
    assert report.name == "model"
    assert {"params.0.W", "params.2.b", "params.3.W", "x"} < {row.leaf for row in report.rows}
    assert not {"target", "weights"} & {row.leaf for row in report.rows}


WRONG = {
    "1": lambda bad: hg.chain(hg.linear(4), bad(hg.tanh()), hg.linear(3)),
    "2": lambda bad: hg.chain(hg.linear(4), hg.tanh(), bad(hg.linear(3))),
    "1.inside.1": lambda bad: hg.chain(hg.linear(4), hg.residual(hg.chain(hg.linear(4), bad(hg.tanh()))), hg.linear(3)),
    "1.2.inside.0": lambda bad: hg.chain(
        hg.linear(4), hg.repeat(hg.residual(hg.chain(bad(hg.linear(4)), hg.tanh())), 3), hg.linear(3)
    ),
    "body.head": lambda bad: hg.chain(body=hg.chain(tail=hg.linear(4), head=bad(hg.tanh())), last=hg.linear(3)),
}


@pytest.mark.parametrize("path", WRONG)
def test_the_first_wrong_layer(path):
    report = check(WRONG[path](spoiled))
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert report.reason.startswith(f"the first wrong layer, from the loss backwards, is {path}; ")


def test_two_wrong_layers_name_the_later_one():
    model = hg.chain(spoiled(hg.linear(4)), hg.tanh(), spoiled(hg.linear(4)), hg.linear(3))
    assert check(model).reason.startswith("the first wrong layer, from the loss backwards, is 2; ")


def test_a_wrong_parameter_gradient():
    """dW alone: what flows back is right, so only one leaf fails."""
    linear = hg.linear(4)

    def backward(residuals, dy):
        dx, dparams = linear.backward(residuals, dy)
        return dx, jax.tree.map(lambda d: d * 1.5, hg.materialize(dparams))

    report = check(hg.chain(hg.Layer(linear.init, linear.forward, backward), hg.linear(3)))
    assert sorted(row.leaf for row in report.rows if row.status == "FAIL") == ["params.0.W", "params.0.b"]
    assert report.reason.startswith("the first wrong layer, from the loss backwards, is 0; params.0.")
    assert "1.5 × too large" in report.reason


def test_the_loss():
    loss = hg.squared_error()
    bad = loss._replace(backward=lambda residuals, d: loss.backward(residuals, d) * (1 + 1e-8))
    assert check(hg.chain(hg.linear(3)), bad).reason.startswith("the loss itself is wrong; ")


def test_a_loss_that_forgets_its_cotangent():
    """Right in training, where each loss has a cotangent of one; wrong for any other."""
    loss = hg.squared_error()
    bad = loss._replace(backward=lambda residuals, d: loss.backward(residuals, jnp.ones_like(d)))
    assert check(hg.chain(hg.linear(3)), bad).reason.startswith("the loss itself is wrong; ")


def test_a_wrong_composition():
    """Each layer is right; the chain around them leaves the last one's dx out."""
    model = hg.chain(hg.linear(4), hg.tanh(), hg.linear(3))

    def backward(residuals, dy):
        dx, dparams = model.backward(residuals, dy)
        return 2 * dx, dparams

    report = check(model._replace(backward=backward))
    assert report.reason.startswith("each layer is right on its own, so they are put together wrongly; x: ")


def test_a_broken_promise_is_no_wrong_layer():
    """A layer whose NaN spreads is named, or nobody; never "put together wrongly"."""
    tanh = hg.tanh()
    leaky = hg.Layer(tanh.init, tanh.forward, lambda r, dy: (tanh.backward(r, dy)[0] + 0 * dy.sum(), ()))
    report = check(hg.chain(hg.linear(4), leaky, hg.linear(3)), contracts=True)
    assert report.verdict == "FAIL"
    assert "put together wrongly" not in report.reason, report.reason


def test_dropout_by_its_key():
    """Each layer's own key, as the chain hands it out."""

    def forward(params, x, key=None):
        kept = jnp.ones(x.shape) if key is None else jax.random.bernoulli(key, 0.5, x.shape) * 2.0
        return x * kept, kept

    dropout = hg.Layer(lambda key, x: (), forward, lambda kept, dy: (dy * kept, ()))
    bad = hg.Layer(dropout.init, forward, lambda kept, dy: (dy, ()))
    right = check(hg.chain(hg.linear(4), dropout, hg.linear(3)), key=jax.random.key(2))
    assert right.ok, right
    wrong = check(hg.chain(hg.linear(4), bad, hg.linear(3)), key=jax.random.key(2))
    assert wrong.reason.startswith("the first wrong layer, from the loss backwards, is 1; ")


def test_cast_to_another_dtype():
    model = hg.chain(hg.linear(4), hg.tanh(), hg.linear(3))
    right = check(model, dtype="bfloat16")
    assert right.ok, right
    assert {row.dtype for row in right.rows} == {"bfloat16"}
    wrong = check(hg.chain(hg.linear(4), spoiled(hg.tanh(), 1.5), hg.linear(3)), dtype="bfloat16")
    assert wrong.reason.startswith("the first wrong layer, from the loss backwards, is 1; ")


def test_without_x64():
    model = hg.chain(hg.linear(4), hg.tanh(), hg.linear(3))
    with jax.enable_x64(False):
        in_float64 = check(model, dtype=np.float64)
        assert jnp.zeros(1, float).dtype == np.float32
    assert in_float64.ok, in_float64
    assert {row.dtype for row in in_float64.rows} == {"float64"}


def test_the_layers_of_a_network():
    model = good()
    found = innermost_layers(model, model.init(jax.random.key(0), X), X)
    assert [path for path, *_ in found] == ["0", "1", "2.inside", "3.0", "3.1", "3.2", "4"]
    assert [np.shape(x) for *_, x, _key in found] == [(5, 4)] * 7
    linear = hg.linear(3)
    (alone,) = innermost_layers(linear, linear.init(jax.random.key(0), X), X)
    assert alone[0] == "the model"


def test_a_model_that_is_a_single_layer():
    assert check(spoiled(hg.linear(3))).reason.startswith(
        "the first wrong layer, from the loss backwards, is the model; "
    )
