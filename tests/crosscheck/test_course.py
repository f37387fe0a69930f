"""What a verdict depends on, and what it must not: dtypes, scales, conditioning, tolerances, the caller's settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.subjects import failing, linear, linear_backward

from handgrad.crosscheck import CheckFailed, Settings, check_rule
from handgrad.crosscheck.course import look
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.programs import Programs

QUICK = {"control": False, "contracts": False, "transforms": ()}
rng = np.random.default_rng(0)


ARGS = tuple(rng.standard_normal(shape) for shape in ((5, 4), (4, 3), (3,)))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_right_in_every_dtype(dtype):
    """Of the arguments, which are large, and asked for."""
    report = check_rule(linear, linear_backward, *((30 * a).astype(dtype) for a in ARGS), **QUICK)
    assert report.ok, report
    assert {row.dtype for row in report.rows} == {str(np.dtype(dtype))}
    again = check_rule(linear, linear_backward, *ARGS, dtype=dtype, **QUICK)
    assert {row.dtype for row in again.rows} == {str(np.dtype(dtype))}


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_the_dtype_of_another_precision(dtype):
    """What a jnp.zeros(3) in a backward pass does."""
    report = check_rule(
        linear, lambda r, dY: (*linear_backward(r, dY)[:2], dY.sum(0).astype(dtype)), *ARGS, differences=False, **QUICK
    )
    assert (report.verdict, failing(report)) == ("FAIL", ["b"])
    assert str(np.dtype(dtype)) in report.reason
    assert "float64" in report.reason


def test_dtype_of_higher_precision_than_the_argument():
    args = [a.astype(np.float32) for a in ARGS]
    report = check_rule(
        linear, lambda r, dY: (*linear_backward(r, dY)[:2], dY.sum(0).astype(np.float64)), *args, **QUICK
    )
    assert (report.verdict, failing(report)) == ("FAIL", ["b"])


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, 1.001])
def test_five_hundred_numbers_in_float32(factor):
    """What check_vjp passes, as its tolerance grows with the size."""
    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    report = check_rule(
        lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x) * np.float32(factor),), x, differences=False, **QUICK
    )
    assert (report.verdict, failing(report)) == ("FAIL", ["x"])


def test_five_hundred_right_numbers_in_float32():
    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    assert check_rule(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),), x, **QUICK).ok


@functools.cache
def linear_without(leaf):
    """The gradient of one leaf 0, by hand; None: all are right."""

    def backward(residuals, dY):
        found = linear_backward(residuals, dY)
        return tuple(g * (i != leaf) for i, g in enumerate(found))

    return Programs(from_rule(None, linear, backward, [a.astype(np.float32) for a in ARGS], None))


@pytest.mark.parametrize(("big", "small"), [(1e6, 1e-6), (1e-6, 1e6), (1e6, 1e6), (1e-6, 1e-6)])
def test_leaves_of_mixed_scales(big, small):
    """The right gradient passes, and one without its small leaf doesn't."""
    args = [(a * s).astype(np.float32) for a, s in zip(ARGS, (big, small, 1.0), strict=True)]
    assert look(linear_without(None), args, Settings(**QUICK)).ok
    for leaf, name in enumerate("XWb"):
        assert failing(look(linear_without(leaf), args, Settings(differences=False, **QUICK))) == [name]


def test_an_error_orthogonal_to_a_direction():
    """An error that one fixed direction can't see: in every element, and without a component along ones."""
    error = np.resize([1e-9, -1e-9], (6, 8))
    X = rng.standard_normal((6, 8))
    report = check_rule(
        lambda X: (jnp.tanh(X), X),
        lambda X, dY: (dY * (1 - jnp.tanh(X) ** 2) + error * jnp.abs(dY),),
        X,
        differences=False,
        **QUICK,
    )
    assert failing(report) == ["X"]


@pytest.mark.parametrize("factor", [2, 2.001])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_and_small_inputs(factor, dtype):
    X = np.random.default_rng(0).uniform(0.5, 1.5, (3, 4))
    rule = (lambda X: (X**2, X)), (lambda X, dY: (factor * X * dY,))
    programs = Programs(from_rule(None, *rule, [X.astype(dtype)], None))
    for scale in (1e5, -1e5, 1e-6):
        report = look(programs, [(scale * X).astype(dtype)], Settings(**QUICK))
        assert report.ok == (factor == 2), report


def test_the_sum_of_a_softmax_is_inconclusive():
    def backward(X, dy):
        P = jax.nn.softmax(X)
        return (dy * (P - P * P.sum(-1, keepdims=True)),)

    X = rng.standard_normal((4, 5))
    for grad in (backward, lambda X, dy: (0 * X * dy,)):
        report = check_rule(lambda X: (jax.nn.softmax(X).sum(), X), grad, X, **QUICK)
        assert (report.verdict, report.culprit) == ("INCONCLUSIVE", "input")
        assert "constant or saturated" in report.reason or "the reference is zero" in report.reason
    wrong = check_rule(lambda X: (jax.nn.softmax(X).sum(), X), lambda X, dy: (0 * X + dy,), X, **QUICK)
    assert (wrong.verdict, wrong.culprit) == ("FAIL", "hand")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saturation_is_inconclusive(dtype):
    """tanh at ±40 has a slope of 0 in floating point; a wrong rule agrees with that."""
    X = np.where(rng.standard_normal((4, 5)) > 0, 40.0, -41.0).astype(dtype)
    for factor in (1.0, 2.0):
        report = check_rule(
            lambda X: (jnp.tanh(X), X), lambda X, dY, f=factor: (f * dY * (1 - jnp.tanh(X) ** 2),), X, **QUICK
        )
        assert report.verdict == "INCONCLUSIVE", report
        with pytest.raises(CheckFailed, match="INCONCLUSIVE"):
            report.raise_if_failed()


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (0.7, "equal")])
def test_all_equal_inputs_are_inconclusive(value, word):
    report = check_rule(
        lambda X, W: (jnp.exp(X) @ W, (X, W)),
        lambda r, dY: (jnp.exp(r[0]) * (dY @ r[1].T), jnp.exp(r[0]).T @ dY),
        np.full((3, 3), value),
        np.full((3, 3), value),
        **QUICK,
    )
    assert report.verdict == "INCONCLUSIVE"
    assert report.culprit == "input"
    assert word in report.reason


def test_ill_conditioned_is_inconclusive():
    """sin(1e20 x) in float32: nobody's gradient has a digit."""
    x = np.float32([1.1, 2.2, 3.3])
    f = lambda x: jnp.sin(x * np.float32(1e20))  # noqa: E731
    report = check_rule(lambda x: (f(x), x), lambda x, dy: (dy * 1e20 * jnp.cos(x * np.float32(1e20)),), x, **QUICK)
    assert report.verdict == "INCONCLUSIVE"
    assert "ill-conditioned" in report.reason or "disagree" in report.reason


@pytest.mark.parametrize("x", [20.0, 60.0])
@pytest.mark.parametrize("contracts", [True, False])
def test_overflow_that_autodiff_shares_is_no_failure(x, contracts):
    """x⁴ of 20 overflows float16, its gradient too at 60; the same formula by autodiff does so as well."""
    x = np.float16([1.0, 2.0, x])
    settings = QUICK | {"contracts": contracts}
    report = check_rule(lambda x: (x * x * x * x, x), lambda x, dy: (4 * x * x * x * dy,), x, **settings)
    assert report.verdict in ("PASS", "INCONCLUSIVE"), report
    assert report.verdict == ("INCONCLUSIVE" if x[2] == 60 else report.verdict), report


def test_a_gradient_that_alone_overflows_is_wrong():
    x = np.float32([1.0, 2.0, 60.0])

    def clumsy(x, dy):
        return (dy * jnp.exp(x) ** 2 / (jnp.exp(x) ** 2 + 1),)

    report = check_rule(lambda x: (jnp.logaddexp(2 * x, 0) / 2, x), clumsy, x, **QUICK)
    assert (report.verdict, report.rows[0].index) == ("FAIL", (2,))


def test_user_rtol_and_atol():
    def off(size):
        return lambda X, dY: ((1 + size) * dY * (1 - jnp.tanh(X) ** 2),)

    def verdict(size, **tolerances):
        return check_rule(lambda X: (jnp.tanh(X), X), off(size), ARGS[0], differences=False, **QUICK, **tolerances)

    within = verdict(1e-6, rtol=1e-5)
    assert within.ok
    assert within.rows[0].tolerance == pytest.approx(1e-5)
    assert within.settings["rtol"] == 1e-5
    assert verdict(1e-4, rtol=1e-5).verdict == "FAIL"
    excused = verdict(1e-6, atol=1e-3)
    assert excused.verdict == "INCONCLUSIVE"
    assert "atol = 0.001" in excused.reason
    assert verdict(1e-6, atol=1e-9).verdict == "FAIL"
    assert verdict(0.0, atol=1e3).ok
    assert verdict(0.0, rtol=0.9).verdict == "INCONCLUSIVE"


# the caller's world


def test_a_setting_that_is_none():
    with pytest.raises(TypeError, match="tolerance"):
        check_rule(linear, linear_backward, *ARGS, tolerance=1e-3)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_callers_configuration_comes_back(x64, error):
    def backward(residuals, dY):
        if error:
            raise error("stop")
        return linear_backward(residuals, dY)

    with jax.enable_x64(x64), jax.default_matmul_precision("bfloat16"):
        try:
            check_rule(linear, backward, *(a.astype(np.float32) for a in ARGS), **QUICK)
        except KeyboardInterrupt:
            assert error is KeyboardInterrupt
        assert jnp.zeros(1, float).dtype == (np.float64 if x64 else np.float32)
        assert jax.config.jax_default_matmul_precision == "bfloat16"


def test_x64_need_not_be_on():
    with jax.enable_x64(False):
        in_float32 = check_rule(linear, linear_backward, *(jnp.asarray(a) for a in ARGS), **QUICK)
        given_float64 = check_rule(linear, linear_backward, *ARGS, **QUICK)
        asked_float64 = check_rule(linear, linear_backward, *(jnp.asarray(a) for a in ARGS), dtype="float64", **QUICK)
        third = check_rule(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),), 0.3, **QUICK)
    for report, dtype in (
        (in_float32, "float32"),
        (given_float64, "float64"),
        (asked_float64, "float64"),
        (third, "float32"),
    ):
        assert report.ok, report
        assert {row.dtype for row in report.rows} == {dtype}


@pytest.mark.parametrize("config", ["debug_nans", "disable_jit", "strict"])
def test_other_settings_of_the_caller_do_no_harm(config):
    context = {
        "debug_nans": lambda: jax.debug_nans(True),
        "disable_jit": jax.disable_jit,
        "strict": lambda: jax.numpy_dtype_promotion("strict"),
    }[config]
    args = [a.astype(np.float32) for a in ARGS]
    with context():
        report = check_rule(linear, linear_backward, *args, control=False)
    assert report.ok, report


def test_the_same_seed_is_the_same_report():
    def wrong(r, dY):
        return *linear_backward(r, dY)[:2], dY.sum(0) * 1.1

    one, two = (check_rule(linear, wrong, *ARGS, seed=5, **QUICK) for _ in range(2))
    assert one.rows == two.rows
    other = check_rule(linear, wrong, *ARGS, seed=6, **QUICK)
    assert other.rows != one.rows
    assert failing(other) == failing(one) == ["b"]


def test_numpy_functions_with_a_reference():
    def forward(x):
        return np.tanh(np.asarray(x)), np.asarray(x)

    report = check_rule(
        forward, lambda x, dy: (np.asarray(dy) * (1 - np.tanh(x) ** 2),), ARGS[0], reference=jnp.tanh, control=False
    )
    assert report.ok, report
    assert "ran step by step" in report.notes[0]
