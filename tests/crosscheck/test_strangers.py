"""Rules that others wrote: jax.nn, jax.scipy.special, optax; right ones, and broken on purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import check_right, in_turn, names
from jax.scipy import special

import handgrad as hg

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6))
SHARES = RNG.uniform(0.1, 0.9, (4, 5))
LABELS = RNG.dirichlet(np.ones(4), 5)
LOGITS = RNG.standard_normal((5, 4))
ONE_HOT = np.eye(4)[[0, 3, 1, 1, 2]]
QUICK = {"control": False}
NUMBERS = {"control": False, "contracts": False, "transforms": ()}


def plain_softmax(X):
    E = jnp.exp(X)
    return E / E.sum(-1, keepdims=True)


def plain_gelu(x):
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi).item() * (x + 0.044715 * x**3)))


# Functions of one array with a derivative of their own (but gelu), from their definitions.
OF_ONE = {
    "relu": (jax.nn.relu, lambda x: jnp.maximum(x, 0), X),
    "relu6": (jax.nn.relu6, lambda x: jnp.clip(x, 0, 6), 5 * X),
    "gelu": (jax.nn.gelu, plain_gelu, X),
    "silu": (jax.nn.silu, lambda x: x / (1 + jnp.exp(-x)), X),
    "softmax": (jax.nn.softmax, plain_softmax, X),
    "log_softmax": (jax.nn.log_softmax, lambda x: jnp.log(plain_softmax(x)), X),
    "logsumexp": (jax.nn.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), X),
    "log1mexp": (jax.nn.log1mexp, lambda x: jnp.log(1 - jnp.exp(-x)), 3 * SHARES),
    "sinc": (jnp.sinc, lambda x: jnp.sin(np.pi * x) / (np.pi * x), SHARES),
    "cumprod": (jnp.cumprod, lambda x: jnp.stack([jnp.prod(x[: i + 1]) for i in range(4)]), np.array([1.0, 0, 2, 3])),
}


@pytest.mark.parametrize(("name", "dtype"), in_turn(OF_ONE))
def test_a_strangers_function_is_right(name, dtype):
    f, plain, x = OF_ONE[name]
    report = hg.check_custom_vjp(f, plain, x, dtype=dtype, **QUICK)
    check_right(report)
    assert [row.dtype for row in report.rows] == [dtype]


@pytest.mark.parametrize(("name", "dtype"), [("relu", "bfloat16"), ("gelu", "float16"), ("softmax", "bfloat16")])
def test_in_half_precision_too(name, dtype):
    f, plain, x = OF_ONE[name]
    check_right(hg.check_custom_vjp(f, plain, x, dtype=dtype, **QUICK))


def test_no_mutant_of_jax_nn_gelu_survives():
    control = hg.check_custom_vjp(jax.nn.gelu, plain_gelu, X).control
    assert control.survived == ()
    assert sum(control.killed.values()) >= 70


@pytest.mark.parametrize(
    ("f", "plain"),
    [(special.xlogy, lambda x, y: x * jnp.log(y)), (jnp.logaddexp, lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y)))],
    ids=["xlogy", "logaddexp"],
)
def test_of_two_arguments(f, plain):
    report = hg.check_custom_vjp(f, plain, SHARES, SHARES[::-1] + 0.1, **QUICK)
    check_right(report)
    assert len(report.rows) == 2


def test_relu_at_its_kink_takes_another_subgradient_than_maximum():
    report = hg.check_custom_vjp(jax.nn.relu, lambda x: jnp.maximum(x, 0), np.array([0.0, 1, -2]), **QUICK)
    assert report.ok
    (kink,) = report.kinks
    assert kink.startswith("x[0] = 0 is on a kink: slopes from 0 to ")
    assert "0 by hand" in kink


def test_the_double_where_trap_is_autodiffs_fault():
    report = hg.check_custom_vjp(
        jax.nn.elu, lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1), np.array([1000.0, 1, -2]), **QUICK
    )
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")
    assert report.reason.startswith("autodiff is wrong at x[0]: it says nan, differences ")


# ---- a softmax, broken


def softmax_with(backward):
    @jax.custom_vjp
    def softmax(X):
        return jax.nn.softmax(X)

    softmax.defvjp(lambda X: (jax.nn.softmax(X),) * 2, backward)
    return softmax


def right_softmax(P, dP):
    return P * (dP - (P * dP).sum(-1, keepdims=True))


BROKEN_SOFTMAX = {
    "2 × too large": lambda P, dP: (2 * right_softmax(P, dP),),
    "mean instead of sum: factor 1/4 = 1/batch": lambda P, dP: (right_softmax(P, dP) / 4,),
    "sign flipped": lambda P, dP: (-right_softmax(P, dP),),
    "examples": lambda P, dP: (right_softmax(P, dP)[::-1],),
    "ignores the cotangent": lambda P, dP: (right_softmax(P, P + dP * 0),),
    "float32": lambda P, dP: (right_softmax(P.astype("float32"), dP).astype(P.dtype),),
    "off by": lambda P, dP: (P * (dP - (P * dP).mean(-1, keepdims=True)),),
    "off by 3.2": lambda P, dP: (P * (dP - dP.sum(-1, keepdims=True)),),
}


@pytest.mark.parametrize("says", BROKEN_SOFTMAX)
def test_a_broken_softmax_fails(says):
    promise = says == "ignores the cotangent"
    report = hg.check_custom_vjp(
        softmax_with(BROKEN_SOFTMAX[says]), plain_softmax, X, **(QUICK if promise else NUMBERS)
    )
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    if promise:
        assert "linear in the cotangent" in names(report)
    else:
        assert says in report.reason, report.reason
    with pytest.raises(hg.crosscheck.CheckFailed, match=r"^FAIL  softmax"):
        report.raise_if_failed()


def test_a_sum_over_all_rows_lets_a_nan_out_of_its_example():
    def backward(P, dP):
        return (P * (dP - (P * dP).sum()),)

    report = hg.check_custom_vjp(softmax_with(backward), plain_softmax, X, **QUICK)
    assert report.verdict == "FAIL"
    assert "a NaN stays in its example" in names(report)


def test_the_right_one_passes_under_every_transformation():
    f = softmax_with(lambda P, dP: (right_softmax(P, dP),))
    everything = ("jit", "vmap", "scan", "checkpoint", "second_order")
    report = hg.check_custom_vjp(f, plain_softmax, X[:2, :3], transforms=everything, **QUICK)
    check_right(report)


def test_what_shows_nothing_is_inconclusive():
    def total(X):
        return jax.nn.softmax(X).sum()

    assert hg.check_function(total, lambda X: 0 * X, X, **NUMBERS).verdict == "INCONCLUSIVE"
    assert hg.check_function(total, lambda X: X, X, **NUMBERS).verdict == "FAIL"
    equal = hg.check_custom_vjp(jax.nn.softmax, plain_softmax, np.ones((4, 6)), **NUMBERS)
    assert equal.verdict == "INCONCLUSIVE"
    assert equal.reason == "the inputs are all equal: a gradient that mixes up elements would pass"


# ---- optax


def plain_cross_entropy(logits, labels):
    return -jnp.sum(labels * jnp.log(plain_softmax(logits)), -1)


def onto_simplex(v):
    u = jnp.sort(v)[::-1]
    means = (jnp.cumsum(u) - 1) / jnp.arange(1, v.size + 1)
    return jnp.maximum(v - means[jnp.sum(u > means) - 1], 0)


@pytest.mark.parametrize("labels", [LABELS, ONE_HOT], ids=["soft", "one-hot"])
def test_optaxs_weighted_log_softmax_is_right(labels):
    check_right(hg.check_custom_vjp(optax.safe_softmax_cross_entropy, plain_cross_entropy, LOGITS, labels, **QUICK))


def test_optaxs_projection_onto_the_simplex_is_right():
    check_right(hg.check_custom_vjp(optax.projections.projection_simplex, onto_simplex, LOGITS[0], **QUICK))


def test_scale_gradient_is_wrong_by_design_and_right_by_intention():
    def halved(x):
        return optax.scale_gradient(x, 0.5)

    report = hg.check_custom_vjp(halved, lambda x: x, X, **NUMBERS)
    assert (report.verdict, report.reason) == ("FAIL", "x: half of what it should be")

    def intended(x):
        return 0.5 * x + jax.lax.stop_gradient(0.5 * x)

    check_right(hg.check_custom_vjp(halved, intended, X, differences=False, **QUICK))


def test_a_straight_through_estimator_needs_its_intention_too():
    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, dY: (dY,))
    report = hg.check_custom_vjp(rounded, None, 3 * X, **NUMBERS)
    assert (report.verdict, report.reason) == ("FAIL", "x: nonzero, where the right gradient is zero")

    def intended(x):
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    check_right(hg.check_custom_vjp(rounded, intended, 3 * X, differences=False, **QUICK))
