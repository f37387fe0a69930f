"""Kinks, and autodiff held to account: never a silent failure, never a silent pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import Settings, check_function, check_rule
from handgrad.crosscheck.course import look
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.programs import Programs

QUICK = {"control": False, "contracts": False, "transforms": ()}


def relu_forward(X, slope, wrong):
    return relu(X, slope, wrong), (X, slope, wrong)


def relu_backward(residuals, dY):
    X, slope, wrong = residuals
    dX = jnp.where(X == 0, (slope / 1000).astype(dY.dtype) * dY, dY * (X > 0))
    return dX * (1 + wrong), None, None


def relu(X, slope, wrong):
    return jnp.where(X > 0, X, 0)


@functools.cache
def relu_programs(shape, dtype):
    args = np.zeros(shape, dtype), np.int64(0), np.zeros(shape, int)
    return Programs(from_rule(None, relu_forward, relu_backward, args, relu))


def check_relu(slope, X, wrong=None):
    """ReLU whose slope at 0 is `slope`, to three digits; the gradient of the element `wrong` is twice too large.

    Integers have no gradient: as arguments they make one program of all slopes.
    """
    twice = np.zeros(X.shape, int)
    if wrong is not None:
        twice[wrong] = 1
    leaves = [X, np.int64(round(1000 * slope)), twice]
    return look(relu_programs(X.shape, X.dtype), leaves, Settings(**QUICK))


SMALL = np.array([[0.0, -0.0, 1.3], [-0.4, 2.0, 0.0]])


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_subgradient_of_relu_at_zero(slope, dtype):
    report = check_relu(slope, SMALL.astype(dtype))
    assert report.ok, report
    assert len(report.kinks) == 3
    assert report.kinks[0].startswith("X[0, 0] = 0 is on a kink: slopes from ")
    assert "by hand" in report.kinks[0]
    assert "by autodiff" in report.kinks[0]


@pytest.mark.parametrize("slope", [-0.1, 1.1, -1.0, 2.0, 1.001])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_subgradient_of_relu_at_zero(slope, dtype):
    report = check_relu(slope, SMALL.astype(dtype))
    assert (report.verdict, report.culprit) == ("FAIL", "kink")
    assert report.reason.startswith("no subgradient: X[")


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_wrong_beside_a_kink(slope):
    """An error next to a kink is no convention."""
    report = check_relu(slope, SMALL, (1, 1))
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert report.rows[0].index == (1, 1)


def large(zeros):
    r = np.random.default_rng(zeros)
    X = r.standard_normal((10, 12))
    X.reshape(-1)[r.permutation(120)[:zeros]] = 0.0
    X[4, 5] = 1.5
    return X


@pytest.mark.parametrize(("zeros", "slope"), [(1, 1.0), (3, 0.5), (60, 0.0), (110, 0.5)])
def test_subgradients_in_a_large_leaf(zeros, slope):
    report = check_relu(slope, large(zeros))
    assert report.ok, report
    assert slope == 0.0 or report.kinks


@pytest.mark.parametrize(("zeros", "slope"), [(0, 0.0), (3, 0.5), (60, 0.0), (110, 1.0)])
def test_wrong_among_many_kinks_of_a_large_leaf(zeros, slope):
    report = check_relu(slope, large(zeros), (4, 5))
    assert report.verdict == "FAIL", report
    if zeros < 8:
        assert report.rows[0].index == (4, 5)


@pytest.mark.parametrize("element", [1, 9])
def test_one_wrong_element_is_not_taken_for_a_kink(element):
    """90 of 120 elements are on a kink, and differ from autodiff by convention; one more is simply wrong."""
    r = np.random.default_rng(2)
    X = r.standard_normal((10, 12))
    X.reshape(-1)[r.permutation(120)[:90]] = 0.0
    report = check_relu(1.0, X, tuple(np.argwhere(X > 0)[element]))
    assert report.verdict == "FAIL", report


@pytest.mark.parametrize("slope", [-1.0, 2.0])
def test_no_subgradient_in_a_large_leaf(slope):
    assert check_relu(slope, large(60)).verdict == "FAIL"


def max_with(shares):
    """max over the last axis; where three tie for it, each gets its share."""

    def forward(X):
        return jnp.max(X, -1), X

    def backward(X, dY):
        top = jnp.max(X, -1, keepdims=True) == X
        alone = jnp.sum(top, -1, keepdims=True) == 1
        return (dY[..., None] * jnp.where(alone, 1.0, jnp.asarray(shares, X.dtype)) * top,)

    return forward, backward


TIED = np.array([[1.0, 1.0, 1.0], [0.2, 2.0, -1.0]])


@pytest.mark.parametrize("shares", [[[1.0, 0, 0]], [[1 / 3, 1 / 3, 1 / 3]], [[0.5, 0, 0.5]], [[0, 0, 1.0]]])
def test_any_share_of_a_tie(shares):
    report = check_rule(*max_with(shares), TIED, reference=lambda X: jnp.max(X, -1), **QUICK)
    assert report.ok, report
    assert len(report.kinks) == 3


@pytest.mark.parametrize("shares", [[[2.0, 0, 0]], [[-1.0, 1.0, 1.0]]])
def test_shares_outside_the_slopes(shares):
    report = check_rule(*max_with(shares), TIED, reference=lambda X: jnp.max(X, -1), **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "kink")


@pytest.mark.parametrize("shares", [[[1.0, 1.0, 1.0]], [[0, 0, 0]], [[0.5, 0, 0]], [[1.0, 1.0, 0]]])
def test_shares_that_do_not_add_up(shares):
    """Each within its own slopes, 0 and 1; together none of them is a subgradient: along (1, 1, 1) max is smooth."""
    report = check_rule(*max_with(shares), TIED, reference=lambda X: jnp.max(X, -1), **QUICK)
    assert report.verdict == "FAIL", report


@pytest.mark.parametrize("sign", [-1.0, 0.0, 0.5, 1.0])
def test_abs_and_sign(sign):
    report = check_rule(
        lambda X: (jnp.abs(X), X), lambda X, dY: (dY * jnp.where(X == 0, sign, jnp.sign(X)),), SMALL, **QUICK
    )
    assert report.ok, report


def test_relu_near_its_kink_is_no_kink():
    X = np.array([[1e-9, -1e-9, 1e-7, -3.0]])
    assert check_relu(0.0, X).ok
    report = check_relu(0.0, X, (0, 0))
    assert (report.verdict, report.rows[0].index) == ("FAIL", (0, 0))


def relu_network(seed, width=128, batch=16, dtype=np.float64):
    r = np.random.default_rng(seed)
    shapes = ((batch, 16), (16, width), (width,), (width, width), (width,), (width, 3))
    return [(r.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype) for shape in shapes]


def network(X, W1, b1, W2, b2, W3):
    H1 = jnp.maximum(X @ W1 + b1[None], 0)
    H2 = jnp.maximum(H1 @ W2 + b2[None], 0)
    return H2 @ W3, (X, W1, H1, W2, H2, W3)


def network_backward(residuals, dY):
    X, W1, H1, W2, H2, W3 = residuals
    D2 = dY @ W3.T * (H2 > 0)
    D1 = D2 @ W2.T * (H1 > 0)
    return D1 @ W1.T, X.T @ D1, D1.sum(0), H1.T @ D2, D2.sum(0), H2.T @ dY


def test_a_relu_network_of_width_128_over_twenty_seeds():
    """What finite differences as an oracle fail half of. No false alarm, and no shrug either."""
    programs = None  # compiled once
    for seed in range(20):
        leaves = relu_network(seed)
        programs = programs or Programs(from_rule(None, network, network_backward, leaves, None))
        report = look(programs, leaves, Settings(seed=seed, **QUICK))
        assert report.ok, report


def test_a_relu_network_wrong_in_one_bias():
    def wrong(residuals, dY):
        *others, db2, dW3 = network_backward(residuals, dY)
        return *others, db2.at[7].multiply(1 + 1e-9), dW3

    report = check_rule(network, wrong, *relu_network(0), **QUICK)
    assert [row.leaf for row in report.rows if row.status == "FAIL"] == ["b2"]


BELOW = np.array([[-1.0, 4.0, 2.0], [0.5, -3.0, 1.0]])


def trapped(X):
    """√x for x > 0, else 3 x: autodiff is NaN where the slope of the branch not taken is infinite."""
    return jnp.where(X > 0, jnp.sqrt(jnp.maximum(X, 0)), 3.0 * X)


def trapped_backward(X, dY):
    return (dY * jnp.where(X > 0, 0.5 / jnp.sqrt(jnp.where(X > 0, X, 1.0)), 3.0),)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nan_by_double_where_blames_autodiff(dtype):
    """By hand it's right, autodiff NaN at the two negative numbers (0 · ∞)."""
    report = check_rule(lambda X: (trapped(X), X), trapped_backward, BELOW.astype(dtype), reference=trapped, **QUICK)
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")
    assert report.reason.startswith("autodiff is wrong at X[0, 0]: it says nan, differences ")
    assert any("NaN in places" in note for note in report.notes)


@pytest.mark.parametrize("size", [0.0, 2.0, 1.001, np.nan])
def test_wrong_where_autodiff_is_nan(size):
    def wrong(X, dY):
        (dX,) = trapped_backward(X, dY)
        return (jnp.where(X < 0, dX * size, dX),)

    report = check_rule(lambda X: (trapped(X), X), wrong, BELOW, reference=trapped, **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert report.rows[0].bad == pytest.approx(2 / 6)


@pytest.mark.parametrize("size", [0.0, 1.0, 2.0])
def test_nan_in_autodiff_without_differences_proves_nothing(size):
    """Nobody knows the gradient at two of six elements: no PASS, whatever is said there."""

    def backward(X, dY):
        (dX,) = trapped_backward(X, dY)
        return (jnp.where(X < 0, dX * size, dX),)

    report = check_rule(lambda X: (trapped(X), X), backward, BELOW, reference=trapped, differences=False, **QUICK)
    assert report.verdict == "INCONCLUSIVE", report


@pytest.mark.parametrize("good", [True, False])
def test_nan_in_autodiff_of_a_large_leaf(good):
    X = np.random.default_rng(0).standard_normal((10, 12))

    def backward(X, dY):
        (dX,) = trapped_backward(X, dY)
        return (dX if good else dX.at[3].set(5.0),)

    report = check_rule(lambda X: (trapped(X), X), backward, X, reference=trapped, **QUICK)
    assert report.verdict == ("INCONCLUSIVE" if good else "FAIL"), report


def lying(f, factor):
    """f with a custom gradient that is `factor` times too large."""
    wrapped = jax.custom_vjp(f)

    def forward(X):
        return jax.vjp(f, X)

    wrapped.defvjp(forward, lambda pull, dY: (pull(dY)[0] * factor,))
    return wrapped


def test_autodiff_of_the_reference_is_wrong():
    """The reference's own gradient lies; the gradient by hand is right."""
    report = check_rule(
        lambda X: (jnp.tanh(X), X),
        lambda X, dY: (dY * (1 - jnp.tanh(X) ** 2),),
        BELOW,
        reference=lying(jnp.tanh, 2.0),
        **QUICK,
    )
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")


def test_both_lie_alike():
    """By hand as wrong as autodiff: only differences can tell."""
    report = check_rule(
        lambda X: (jnp.tanh(X), X),
        lambda X, dY: (2 * dY * (1 - jnp.tanh(X) ** 2),),
        BELOW,
        reference=lying(jnp.tanh, 2.0),
        **QUICK,
    )
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert "2 × too large" in report.reason


@pytest.mark.parametrize("lie", [2.0, 1.001, 0.0])
def test_both_lie_alike_in_a_large_leaf(lie):
    report = check_rule(
        lambda X: (jnp.tanh(X), X),
        lambda X, dY: (lie * dY * (1 - jnp.tanh(X) ** 2),),
        np.random.default_rng(1).standard_normal((10, 12)),
        reference=lying(jnp.tanh, lie),
        **QUICK,
    )
    assert not report.ok, report


def test_straight_through():
    """round with the gradient of the identity: differences must be told to keep out."""

    def through(X):
        return X + jax.lax.stop_gradient(jnp.round(X) - X)

    pair = (lambda X: (jnp.round(X), ())), (lambda _, dY: (dY,))
    assert check_rule(*pair, BELOW + 0.2, reference=through, differences=False, **QUICK).ok
    assert not check_rule(*pair, BELOW + 0.2, reference=through, **QUICK).ok


def test_a_jump():
    """At a step there is no slope; beside it, it is 0: nothing certifies either."""
    report = check_rule(
        lambda X: (jnp.floor(X) * X, X), lambda X, dY: (dY * jnp.floor(X),), np.array([1.0, 2.5, 3.3]), **QUICK
    )
    assert report.verdict == "INCONCLUSIVE", report


def test_complex_kink():
    """|z| at 0, complex: no false alarm for JAX's own answer, 0."""
    Z = np.array([0.0, 1 + 2j, -1j])

    def backward(Z, dY):
        size = jnp.abs(Z)
        return (dY * jnp.conj(Z) / jnp.where(size == 0, 1.0, size),)

    report = check_rule(lambda Z: (jnp.abs(Z), Z), backward, Z, **QUICK)
    assert report.verdict != "FAIL", report


def test_dead_relu_is_no_pass():
    report = check_relu(0.0, -np.abs(BELOW))
    assert report.verdict == "INCONCLUSIVE"
    assert "the reference is zero" in report.reason


def test_ties_by_a_scalar_function():
    report = check_function(jnp.max, lambda x: (x == jnp.max(x)) / jnp.sum(x == jnp.max(x)), np.array([3.0, 1, 3]))
    assert report.ok, report
    assert [kink[:4] for kink in report.kinks] == ["a[0]", "a[2]"]
