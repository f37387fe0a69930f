"""What is not a gradient at all: INVALID, in one sentence, with the function's own error as the cause."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.crosscheck import Report, check_custom_vjp, check_function, check_layer, check_model, check_rule

QUICK = {"control": False, "contracts": False, "transforms": ()}
X, W = np.random.default_rng(0).standard_normal((4, 3)), np.random.default_rng(1).standard_normal((3, 2))


def forward(X, W):
    return X @ W, (X, W)


def backward(residuals, dY):
    X, W = residuals
    return dY @ W.T, X.T @ dY


def invalid(report, sentence):
    assert report.verdict == "INVALID", report
    assert report.reason == sentence
    assert not report.ok
    assert report.rows == ()
    with pytest.raises(AssertionError, match="INVALID"):
        report.raise_if_failed()
    return True


def only_output(X, W):
    return X @ W


def test_no_residuals():
    assert invalid(
        check_rule(only_output, backward, X, W, **QUICK),
        "only_output must return (output, residuals), got float64 (4, 2)",
    )
    assert invalid(
        check_rule(lambda X, W: (X @ W, X, W), backward, X, W, **QUICK),
        "forward must return (output, residuals), got a tuple of 3",
    )


@pytest.mark.parametrize(("returned", "got"), [(1, "1"), (3, "3"), (0, "0")])
def test_the_wrong_number_of_cotangents(returned, got):
    def some(residuals, dY):
        return (*backward(residuals, dY), dY)[:returned]

    assert invalid(
        check_rule(forward, some, X, W, **QUICK), f"some must return 2 cotangents, one for each argument, got {got}"
    )


def test_cotangents_that_are_no_tuple():
    assert invalid(
        check_rule(forward, lambda r, dY: backward(r, dY)[0], X, W, **QUICK),
        "backward must return a tuple of 2 cotangents, got float64 (4, 3)",
    )


def test_a_cotangent_of_another_structure():
    report = check_rule(
        lambda p: (p["W"] * 2, p), lambda p, dY: ({"V": dY * 2},), {"W": W, "none": None}, name="mine", **QUICK
    )
    assert report.verdict == "INVALID"
    assert report.reason.startswith("backward: cotangent 0 must have its argument's structure, PyTreeDef({")


def test_a_cotangent_for_an_integer():
    report = check_rule(
        lambda X, ids: (X[ids], (X, ids)), lambda r, dY: (dY, r[1]), X, np.arange(4), name="gather", **QUICK
    )
    assert invalid(report, "backward: ids is int64, so its cotangent must be None or float0, got int64 (4,)")


def test_a_cotangent_that_is_no_array():
    report = check_rule(forward, lambda r, dY: ("dX", backward(r, dY)[1]), X, W, **QUICK)
    assert report.verdict == "INVALID", report


def test_a_reference_of_another_structure():
    report = check_rule(forward, backward, X, W, reference=lambda X, W: (X @ W, 1.0), **QUICK)
    assert report.verdict == "INVALID"
    assert "must have the output's structure, PyTreeDef(*), got PyTreeDef((*, *))" in report.reason


def test_a_reference_of_another_shape():
    def rows(X, W):
        return (X @ W)[0]

    report = check_rule(forward, backward, X, W, reference=rows, **QUICK)
    assert report.verdict == "INVALID"
    assert report.reason.endswith("the reference, rows, must have the output's shape, (4, 2), got (2,)")


def test_nothing_to_differentiate():
    sentence = "mine: there must be a floating-point argument to differentiate, got none"
    assert invalid(check_rule(lambda n: (n * 1.0, n), lambda n, dY: (None,), np.arange(3), name="mine"), sentence)
    assert invalid(check_rule(lambda: (1.0, ()), lambda r, dY: (), name="mine"), sentence)
    assert invalid(check_function(lambda x, n: x * n, lambda x, n: x, 2.0, 3, argnums=1, name="mine"), sentence)


def test_an_output_without_floats():
    report = check_rule(lambda X: (jnp.argmax(X), X), lambda X, dY: (X,), X, **QUICK)
    assert report.verdict == "INVALID"
    assert "the output must have a floating-point array" in report.reason


def test_nan_in_the_inputs():
    bad = X.copy()
    bad[1, 2] = np.nan
    for dtype in (np.float64, jnp.bfloat16, np.complex64):
        report = check_rule(forward, backward, bad.astype(dtype), W.astype(dtype), name="mine", **QUICK)
        assert invalid(report, "mine: X must hold numbers, got NaN in the input")


def test_an_infinite_mask_is_an_argument_like_any_other():
    mask = np.where(np.tril(np.ones((4, 4))) > 0, 0.0, -np.inf)

    def masked(S, mask):
        P = jax.nn.softmax(S + mask)
        return P, P

    def pulled(P, dP):
        dS = P * (dP - (P * dP).sum(-1, keepdims=True))
        return dS, dS

    S = np.random.default_rng(0).standard_normal((4, 4))
    assert check_rule(masked, pulled, S, mask, argnums=0).ok
    assert check_rule(masked, lambda P, dP: (P * dP, None), S, mask, argnums=0, **QUICK).verdict == "FAIL"
    both = check_rule(masked, pulled, S, mask, **QUICK)
    assert both.verdict in ("PASS", "INCONCLUSIVE"), both


class OfMyOwn(Exception):  # noqa: N818 (a stranger's)
    pass


def raising(*args):
    raise OfMyOwn("it's late\nand a second line")


def caused(report, kind=OfMyOwn):
    assert report.verdict == "INVALID", report
    assert f"raised {kind.__name__} while being checked: " in report.reason
    assert re.match(
        r"raised at .*test_bad_input.py:\d+ in (raising|picky|picky_backward): raise OfMyOwn", report.notes[0]
    )
    assert isinstance(report.cause, kind)
    assert Report.from_json(report.to_json()) == report, "without the exception"
    with pytest.raises(hg.CheckFailed) as failed:
        report.raise_if_failed()
    assert failed.value.__cause__ is report.cause
    return True


def test_functions_that_raise():
    assert caused(check_rule(raising, backward, X, W))
    assert caused(check_rule(forward, raising, X, W))
    assert caused(check_rule(forward, backward, X, W, reference=raising))
    assert caused(check_function(raising, lambda x: x, 1.0))
    assert caused(check_function(lambda x: x, raising, 1.0))
    f = jax.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, ()), raising)
    assert caused(check_custom_vjp(f, None, 1.0))


def test_functions_that_raise_on_concrete_numbers():
    """Tracing fails first, as they ask for numbers; run step by step, they raise."""

    def picky(X, W):
        if X.sum() > -1e9:
            raise OfMyOwn("not that")
        return forward(X, W)

    def picky_backward(residuals, dY):
        if dY.sum() > -1e9:
            raise OfMyOwn("not that")
        return backward(residuals, dY)

    assert caused(check_rule(forward, picky_backward, X, W))
    assert caused(check_rule(picky, backward, X, W))
    assert caused(check_rule(forward, backward, X, W, reference=lambda X, W: picky(X, W)[0]))


def test_functions_that_raise_when_run():
    """Inside a callback: tracing sees nothing of it."""

    def backward_by_callback(residuals, dY):
        dX, dW = backward(residuals, dY)
        return jax.pure_callback(raising, jax.ShapeDtypeStruct(dX.shape, dX.dtype), dX), dW

    report = check_rule(forward, backward_by_callback, X, W)
    assert report.verdict == "INVALID", report
    assert "OfMyOwn" in f"{report.reason} {report.notes}"


def test_a_reference_that_jax_cannot_differentiate():
    """NumPy by hand, no reference and no differences: there is nothing to compare with."""
    report = check_rule(
        lambda X: (np.tanh(np.asarray(X)), np.asarray(X)), lambda X, dY: (np.asarray(dY),), X, differences=False
    )
    assert (report.verdict, report.culprit) == ("INVALID", "reference"), report
    assert report.reason.endswith(
        "JAX can't trace the reference, and without differences there is nothing to compare with"
    )


def test_a_cotangent_of_another_shape_is_called_by_its_argument():
    f = jax.custom_vjp(lambda X, p, n: n * X @ p["W"], nondiff_argnums=(2,))
    f.defvjp(lambda X, p, n: (n * X @ p["W"], (X, p["W"])), lambda n, r, d: (n * d @ r[1].T, {"W": n * d.T @ r[0]}))
    report = check_custom_vjp(f, None, X, {"W": W}, 2)
    assert (report.reason, report.notes) == ("f: the cotangent of p.W must be float64[3,2], got float64[2,3]", ())


def test_what_is_no_array_and_no_function():
    report = check_rule(forward, lambda r, d: ({"X": d}, None), X, W)
    assert report.reason.endswith("the cotangent of X must be an array, got dict")
    f = jax.custom_vjp(jnp.sin)
    assert check_custom_vjp(f, X, W).reason == "reference must be a function or None, got float64 (4, 3)"  # pyright: ignore
    assert check_rule(forward, X, W).reason == "backward must be a function, got float64 (4, 3)"
    assert check_function(jnp.sum, X, X).reason == "grad_f must be a function, got float64 (4, 3)"  # pyright: ignore


def test_a_custom_vjp_without_its_rules():
    report = check_custom_vjp(jax.custom_vjp(jnp.sin), None, X, **QUICK)
    assert report.verdict == "INVALID", report
    assert "defvjp" in f"{report.reason} {report.notes}"


def test_a_plain_function_in_place_of_a_custom_vjp():
    def plain(x):
        return x

    assert invalid(
        check_custom_vjp(plain, None, X),
        "plain must be a jax.custom_vjp function, itself or under jax.jit, or come with a reference",
    )


def test_function_that_is_no_real_scalar():
    for f, got in ((lambda x: x * X, "float64 (4, 3)"), (lambda x: x * 1j, "complex128 ()")):
        report = check_function(f, lambda x: x, 1.0)
        assert report.verdict == "INVALID", report
        assert report.reason == f"f must return a real scalar, got {got}"


def test_gradients_of_another_number():
    report = check_function(lambda x, y: x * y, lambda x, y: y, 1.0, 2.0, argnums=(0, 1))
    assert report.reason.startswith("grad_f must return 2 gradients, got ")
    assert check_function(lambda x: x, lambda x: x, 1.0, argnums=1).reason == (
        "argnums must be among the 1 argument, got 1"
    )
    assert check_function(lambda x: x**2, lambda x: 2 * x, 1.5, argnums=np.int64(0), **QUICK).ok


def test_a_layer_without_its_parts():
    assert check_layer(object(), X).reason == ("layer must have init, forward and backward, got object without init")
    good = hg.linear(2)
    report = check_layer(good._replace(backward=lambda r, dy: good.backward(r, dy)[0]), X, **QUICK)
    assert invalid(report, "layer.backward must return (dx, dparams), got float64 (4, 3)")
    assert caused(check_layer(good._replace(init=raising), X, **QUICK))
    assert caused(check_layer(good._replace(forward=raising), X, **QUICK))


def test_a_model_or_a_loss_that_is_none():
    model, loss, y = hg.chain(hg.linear(2)), hg.squared_error(), np.zeros((4, 2))
    params = model.init(jax.random.key(0), X)
    assert check_model(object(), loss, params, X, y).reason == (
        "model: model must have forward and backward, got object"
    )
    assert check_model(model, object(), params, X, y).reason == "model: loss must have forward and backward, got object"
    assert caused(check_model(model._replace(forward=raising), loss, params, X, y))
    assert caused(check_model(model, loss._replace(backward=raising), params, X, y))
    wrong_shape = check_model(model, loss, params, X, np.zeros((4, 3)))
    assert wrong_shape.verdict == "INVALID"
    assert "InputError" in wrong_shape.reason
